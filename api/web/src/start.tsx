/** The start page: drop files or paste a URL, and the list of jobs with what they are doing. */
import { useEffect, useRef, useState } from "preact/hooks";
import { ask, type Job, pathOf, refusal } from "./api";

const STREAMS = 3; // a browser has six connections to a host
const LANGUAGES = "en de fr es it pt nl pl ru uk tr ar he hi zh ja ko vi sv da no fi cs ro hu el".split(" ");
const ENDED = ["completed", "failed", "canceled"];

export function Start() {
  const [jobs, setJobs] = useState<Job[]>([]);
  const [next, setNext] = useState<string | null>(null);
  const [error, setError] = useState("");
  const load = async () => {
    try {
      const page = await ask<{ jobs: Job[]; next_cursor: string | null }>("/transcribes?limit=50");
      setJobs(page.jobs); setNext(page.next_cursor); setError("");
    } catch (failure) { setError((failure as Error).message); }
  };
  const more = async () => {
    const page = await ask<{ jobs: Job[]; next_cursor: string | null }>(`/transcribes?limit=50&cursor=${encodeURIComponent(next!)}`);
    setJobs([...jobs, ...page.jobs]); setNext(page.next_cursor);
  };
  useEffect(() => {
    document.title = "Stenoflow";
    load();
    const timer = setInterval(() => { if (!document.hidden && scrollY < innerHeight) load(); }, 5000);
    return () => clearInterval(timer);
  }, []);
  let streams = 0;
  return (
    <main class="narrow">
      <h1>Stenoflow</h1>
      <Submit done={load} />
      <h2>Transcripts</h2>
      {error && <p class="error" role="alert">{error}</p>}
      {!error && jobs.length === 0 && <p class="hint">None yet: drop a recording above.</p>}
      <ul class="jobs">
        {jobs.map((job) => (
          <Item key={job.job_id} job={job} live={!ENDED.includes(job.status) && streams++ < STREAMS} changed={load} />
        ))}
      </ul>
      {next && <button onClick={more}>Show older ones</button>}
    </main>
  );
}

function Submit({ done }: { done: () => void }) {
  const [over, setOver] = useState(false);
  const [sending, setSending] = useState<{ name: string; part: number } | null>(null);
  const [error, setError] = useState("");
  const form = useRef<HTMLFormElement>(null);
  const options = () => {
    const found: Record<string, string> = {};
    for (const [name, value] of new FormData(form.current!)) if (typeof value === "string" && value) found[name] = value;
    const speakers = found["speakers"];
    delete found["speakers"]; delete found["audio_url"];
    found["diarize"] = String(speakers !== "none");
    if (speakers && /^\d+$/.test(speakers)) found["num_speakers"] = speakers;
    return found;
  };
  const send = async (files: FileList | null) => {
    setError("");
    for (const file of files ?? []) {
      try { await upload(file, options(), (part) => setSending({ name: file.name, part })); }
      catch (failure) { setError(`${file.name}: ${(failure as Error).message}`); }
      done();
    }
    setSending(null);
  };
  const fetchUrl = async (event: Event) => {
    event.preventDefault();
    const url = new FormData(form.current!).get("audio_url");
    if (!url) { setError("Drop a file, choose one, or paste a URL."); return; }
    const { diarize, num_speakers, ...rest } = options();
    const body = { audio_url: url, diarize: diarize === "true", ...(num_speakers ? { num_speakers: Number(num_speakers) } : {}), ...rest };
    try {
      await ask("/transcribes", "POST", body);
      (form.current!.elements.namedItem("audio_url") as HTMLInputElement).value = "";
      setError(""); done();
    } catch (failure) { setError((failure as Error).message); }
  };
  return (
    <form ref={form} onSubmit={fetchUrl} class={over ? "submit over" : "submit"}
      onDragOver={(event) => { event.preventDefault(); setOver(true); }} onDragLeave={() => setOver(false)}
      onDrop={(event) => { event.preventDefault(); setOver(false); send(event.dataTransfer?.files ?? null); }}>
      <label class="drop">
        <input type="file" multiple accept="audio/*,video/*" onChange={(event) => send(event.currentTarget.files)} />
        <strong>Drop recordings here</strong> <span>or choose files: audio or video, any format</span>
      </label>
      <div class="row">
        <input name="audio_url" type="url" placeholder="or paste the URL of a recording" aria-label="URL of a recording" />
        <button class="primary">Transcribe</button>
      </div>
      <div class="options">
        <label>Language <input name="language" list="languages" placeholder="detected" size={9} /></label>
        <datalist id="languages">{LANGUAGES.map((code) => <option value={code} />)}</datalist>
        <label>Speakers <select name="speakers">
          <option value="">detected</option>{[1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((n) => <option>{n}</option>)}<option value="none">not identified</option>
        </select></label>
        <label class="wide">Names and terms <input name="hotwords" placeholder="Anna Müller, Kubernetes" /></label>
      </div>
      <details>
        <summary>More options</summary>
        <div class="options">
          <label>Model <input name="model" placeholder="auto" size={12} /></label>
          <label>Task <select name="task"><option value="transcribe">transcribe</option><option value="translate">translate to English</option></select></label>
          <label class="wide">Text that sets the spelling <input name="initial_prompt" /></label>
        </div>
      </details>
      {sending && <p role="status">Uploading {sending.name}: {Math.round(sending.part * 100)} % <progress value={sending.part} aria-label="Upload" /></p>}
      {error && <p class="error" role="alert">{error}</p>}
    </form>
  );
}

function upload(file: File, options: Record<string, string>, report: (part: number) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const form = new FormData(), request = new XMLHttpRequest();
    for (const [name, value] of Object.entries(options)) form.append(name, value);
    form.append("file", file);
    request.upload.onprogress = (event) => report(event.loaded / event.total);
    request.onload = () => request.status < 300 ? resolve() : reject(refusal(request.status, request.responseText));
    request.onerror = () => reject(new Error("The service does not answer; is it running?"));
    request.open("POST", "/transcribes");
    request.setRequestHeader("Idempotency-Key", crypto.randomUUID());
    request.send(form);
  });
}

function Item({ job, live, changed }: { job: Job; live: boolean; changed: () => void }) {
  const [progress, setProgress] = useState<{ part: number; message: string; left: string } | null>(null);
  const [said, setSaid] = useState("");
  const [sure, setSure] = useState(false);
  const [error, setError] = useState("");
  useEffect(() => {
    if (!live) return;
    const source = new EventSource(`${pathOf(job.job_id)}/events`);
    let first: { at: number; part: number } | null = null;
    source.addEventListener("progress", (event) => {
      const data = JSON.parse(event.data), part = data.progress / 100, at = Date.now();
      first ??= { at, part };
      const seconds = part > first.part + 0.02 ? ((1 - part) / (part - first.part)) * ((at - first.at) / 1000) : null;
      setProgress({ part, message: data.message, left: seconds === null ? "" : left(seconds) });
    });
    source.addEventListener("text", (event) => {
      const text = JSON.parse(event.data).segments.map((each: { text: string }) => each.text).join(" ");
      setSaid((before) => `${before} ${text}`.trim());
    });
    for (const name of [...ENDED, "deleted"]) source.addEventListener(name, () => { source.close(); setProgress(null); setSaid(""); changed(); });
    return () => source.close();
  }, [job.job_id, live]);
  const act = async (method: string, path: string) => {
    try { await ask(path, method); setError(""); changed(); } catch (failure) { setError((failure as Error).message); }
  };
  const ended = ENDED.includes(job.status);
  return (
    <li class="job">
      <div class="what">
        {job.status === "completed" ? <a href={`/jobs/${job.job_id}`}>{job.name}</a> : <b>{job.name}</b>}
        <span class={`hint ${job.status}`}>{new Date(job.created_at).toLocaleString()} · {progress?.message ?? job.message}{progress?.left}</span>
        {!ended && <progress value={progress?.part} aria-label={`Progress of ${job.name}`} />}
        {!ended && said && <p class="said" aria-label={`Text of ${job.name} so far`}>{said.length > 400 ? `… ${said.slice(-400)}` : said}</p>}
        {error && <span class="error" role="alert">{error}</span>}
      </div>
      {(job.status === "failed" || job.status === "canceled") && <button onClick={() => act("POST", `${pathOf(job.job_id)}/retry`)}>Retry</button>}
      {sure
        ? <button class="danger" onBlur={() => setSure(false)} onClick={() => act("DELETE", pathOf(job.job_id))}>{ended ? "Really delete" : "Really cancel"}</button>
        : <button onClick={() => setSure(true)}>{ended ? "Delete" : "Cancel"}</button>}
    </li>
  );
}

function left(seconds: number): string {
  return seconds < 90 ? ` · about ${Math.max(5, Math.round(seconds / 5) * 5)} s left` : ` · about ${Math.round(seconds / 60)} min left`;
}
