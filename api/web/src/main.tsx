import { render } from "preact";
import { useState } from "preact/hooks";
import { ask, signedOut } from "./api";
import { Start } from "./start";
import { Viewer } from "./viewer";

function Page() {
  const [needsKey, setNeedsKey] = useState(false);
  signedOut.listener = () => setNeedsKey(true);
  if (needsKey) return <SignIn done={() => setNeedsKey(false)} />;
  const job = location.pathname.match(/^\/jobs\/([^/]+)$/);
  return job ? <Viewer job={decodeURIComponent(job[1]!)} /> : <Start />;
}

function SignIn({ done }: { done: () => void }) {
  const [error, setError] = useState("");
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const key = new FormData(event.target as HTMLFormElement).get("key");
    const answer = await fetch("/session", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ key }),
    }).catch(() => null);
    if (answer?.ok) done();
    else setError(answer?.status === 401 ? "This key is unknown, expired or revoked." : "The service does not answer; try again.");
  };
  return (
    <main class="narrow">
      <h1>Stenoflow</h1>
      <form onSubmit={submit}>
        <label for="key">API key</label>
        <input id="key" name="key" type="password" autocomplete="current-password" required autofocus />
        <p class="hint">From your operator, who creates keys with <code>steno keys make</code>.</p>
        {error && <p class="error" role="alert">{error}</p>}
        <button class="primary">Sign in</button>
      </form>
    </main>
  );
}

render(<Page />, document.body);

export const signOut = () => ask("/session", "DELETE").then(() => location.reload());
