/** Read and listen, and correct in place. */
import { memo } from "preact/compat";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ask, type Changes, clock, type Job, nameOf, type Operation, pathOf, type Revision, type Segment, type SegmentPage, short, type State, type Word } from "./api";
import { Saver, type Status } from "./saver";
import { Waveform } from "./waveform";

const DOUBTFUL = 0.5;
const FORMATS = ["srt", "vtt", "txt", "json", "docx", "html", "md", "csv", "tsv", "eaf", "rttm", "aud", "lrc"];
const RATES = [0.5, 0.75, 1, 1.25, 1.5, 2];
interface Timed { word: Word; segment: string }

export function Viewer({ job }: { job: string }) {
  const [about, setAbout] = useState<Job | null>(null);
  const [state, setState] = useState<State>({ revision: 0, speakers: {}, undo: null, redo: null });
  const [segments, setSegments] = useState<Segment[]>([]);
  const [duration, setDuration] = useState(0);
  const [peaks, setPeaks] = useState<{ peaks: number[]; per_second: number } | null>(null);
  const [error, setError] = useState("");
  const [conflicts, setConflicts] = useState<{ text: string; detail: string }[]>([]);
  const [saving, setSaving] = useState<Status>({ waiting: 0, failing: false });
  const [editing, setEditing] = useState<string | null>(null);
  const [selected, setSelected] = useState<Set<string> | null>(null);
  const [panel, setPanel] = useState<"" | "find" | "history" | "help">("");
  const [naming, setNaming] = useState<{ speaker: string; segment: string | null } | null>(null);
  const [time, setTime] = useState(0);
  const [playing, setPlaying] = useState(false);
  const [rate, setRate] = useState(1);
  const [says, setSays] = useState("");
  const audio = useRef<HTMLAudioElement>(null), list = useRef<HTMLOListElement>(null);
  const yields = useRef(0), stopAt = useRef<number | null>(null), doubt = useRef(-1);
  const now = useRef({ state, segments, editing });
  now.current = { state, segments, editing };

  // -- the transcript -------------------------------------------------------------------------------------------------

  const load = async () => {
    const first = await ask<SegmentPage>(`${pathOf(job)}/segments?limit=100`);
    setState(first); setDuration(first.duration); setSegments(first.segments);
    let all = first.segments;
    while (all.length < first.total) {
      const page = await ask<SegmentPage>(`${pathOf(job)}/segments?limit=2000&first=${all.length}&revision=${first.revision}`);
      if (!page.segments.length) break;
      all = [...all, ...page.segments];
    }
    if (all !== first.segments) setSegments(all);
    // Before the next render: what is sent from now on is made on this.
    now.current = { ...now.current, state: first, segments: all };
  };
  const apply = (changes: Changes) => {
    const next = changed(now.current.segments, changes);
    const { revision, speakers, undo, redo } = changes;
    now.current = { ...now.current, segments: next, state: { revision, speakers, undo, redo } };
    setSegments(next); setState(now.current.state);
  };
  const saver = useMemo(() => new Saver(job, () => now.current.state.revision, apply, async (operations, detail) => {
    await load();
    setEditing(null);
    const lost = operations.filter((operation) => operation.op === "text" && !now.current.segments.some((one) => one.id === operation.segment && one.text === operation.text));
    if (lost.length || operations.some((operation) => operation.op !== "text"))
      setConflicts((all) => [...all, { text: lost.map((operation) => String(operation.text)).join("\n"), detail }]);
  }, setSaving), [job]);
  const edit = (...operations: Operation[]) => saver.add(...operations);

  useEffect(() => {
    (async () => {
      try {
        const found = await ask<Job>(pathOf(job));
        setAbout(found); document.title = `${found.name} · Stenoflow`;
        if (found.status !== "completed") { setError(`The job is ${found.status}. ${found.error ?? found.message}`); return; }
        await load();
        await saver.flush();
        setPeaks(await ask(`${pathOf(job)}/peaks`));
      } catch (failure) { setError((failure as Error).message); }
    })();
  }, [job]);

  // -- listening ------------------------------------------------------------------------------------------------------

  const words = useMemo<Timed[]>(() =>
    segments.flatMap((one) => one.words.map((word) => ({ word, segment: one.id }))).sort((a, b) => a.word.start - b.word.start), [segments]);
  const doubtful = useMemo(() => words.filter((one) => one.word.score < DOUBTFUL && one.word.timing !== "edited"), [words]);
  const wordsNow = useRef(words);
  wordsNow.current = words;
  const seek = (to: number, play = false) => {
    const player = audio.current!;
    player.currentTime = Math.max(0, Math.min(to, duration || to));
    stopAt.current = null; yields.current = 0; setTime(player.currentTime);
    if (play) begin(player);
  };
  const toggle = () => { const player = audio.current!; stopAt.current = null; if (player.paused) begin(player); else player.pause(); };
  const at = () => wordsNow.current[before(wordsNow.current, audio.current!.currentTime)]?.segment;

  useEffect(() => {
    let frame = 0, spoken = "";
    const tick = () => {
      const player = audio.current!;
      setTime(player.currentTime);
      if (stopAt.current !== null && player.currentTime >= stopAt.current) { player.pause(); stopAt.current = null; }
      const found = wordsNow.current[before(wordsNow.current, player.currentTime)];
      if (found && found.word.id !== spoken) {
        spoken = found.word.id;
        const element = document.getElementById(spoken);
        mark("spoken", element ? [element] : []);
        if (element && playing && Date.now() > yields.current) show(element);
      }
      if (playing) frame = requestAnimationFrame(tick);
    };
    tick();
    return () => cancelAnimationFrame(frame);
  }, [playing, segments]);
  useEffect(() => {
    const yielded = () => { yields.current = Date.now() + 4000; };
    addEventListener("wheel", yielded, { passive: true }); addEventListener("touchmove", yielded, { passive: true });
    return () => { removeEventListener("wheel", yielded); removeEventListener("touchmove", yielded); };
  }, []);
  useEffect(() => { if (audio.current) audio.current.playbackRate = rate; }, [rate]);
  const linked = useRef(false);
  useEffect(() => {
    const wanted = location.hash.match(/^#t=([\d.]+)$/);
    if (!wanted || linked.current || !words.length) return;
    linked.current = true;
    seek(Number(wanted[1]));
    const word = words[before(words, Number(wanted[1]) + 0.01)];
    if (word) { const element = document.getElementById(word.word.id); if (element) { mark("spoken", [element]); show(element); } }
  }, [words]);

  // -- the keyboard ---------------------------------------------------------------------------------------------------

  const focused = () => (document.activeElement?.closest("[data-segment]") as HTMLElement | null)?.dataset["segment"] ?? at();
  const focus = (id: string | undefined) => id && document.querySelector<HTMLElement>(`[data-segment="${CSS.escape(id)}"]`)?.focus();
  const step = (by: number) => {
    const place = segments.findIndex((one) => one.id === focused()) + by, found = segments[Math.max(0, Math.min(place, segments.length - 1))];
    if (found) { focus(found.id); seek(found.start); }
  };
  const review = () => {
    if (!doubtful.length) { setSays("No doubtful words are left."); return; }
    doubt.current = (doubt.current + 1) % doubtful.length;
    const { word, segment } = doubtful[doubt.current]!;
    const element = document.getElementById(word.id);
    setSays(`Doubtful word ${doubt.current + 1} of ${doubtful.length}: ${word.word.trim()}`);
    focus(segment);
    if (element) { mark("doubtful", [element]); show(element); }
    seek(Math.max(0, word.start - 0.8), true); stopAt.current = word.end + 0.8;
  };
  const labels = Object.keys(state.speakers);
  const assign = (ids: string[], speaker: string) => { if (ids.length) edit({ op: "assign", segments: ids, speaker }); };
  const fresh = () => { for (let n = 0; ; n++) { const label = `SPEAKER_${String(n).padStart(2, "0")}`; if (!labels.includes(label)) return label; } };
  const onwards = (id: string) => {
    const place = segments.findIndex((one) => one.id === id), speaker = segments[place]?.speaker;
    return segments.slice(place).filter((one) => one.speaker === speaker).map((one) => one.id);
  };
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const typing = (event.target as HTMLElement).matches("input, textarea, select");
      const command = event.ctrlKey || event.metaKey;
      if (command && event.key.toLowerCase() === "f" && !event.shiftKey) { event.preventDefault(); setPanel("find"); return; }
      if (typing) return;
      if (command && event.key.toLowerCase() === "z") {
        event.preventDefault();
        const target = event.shiftKey ? now.current.state.redo : now.current.state.undo;
        if (target) edit({ op: "undo", revision: target });
        return;
      }
      if (command || event.altKey) return;
      const pressedButton = (event.target as HTMLElement).matches("button, a, summary");
      if (pressedButton && (event.key === " " || event.key === "Enter")) return;
      const digit = event.code.match(/^Digit([1-9])$/);
      if (digit) {
        const id = focused(), speaker = labels[Number(digit[1]) - 1];
        if (selected?.size && speaker) assign([...selected], speaker);
        else if (id && speaker) assign(event.shiftKey ? onwards(id) : [id], speaker);
        return;
      }
      const act: Record<string, () => void> = {
        " ": toggle, ArrowLeft: () => seek(audio.current!.currentTime - 3), ArrowRight: () => seek(audio.current!.currentTime + 3),
        ArrowDown: () => step(1), ArrowUp: () => step(-1), n: review, "?": () => setPanel(panel === "help" ? "" : "help"),
        Enter: () => setEditing(focused() ?? null), e: () => setEditing(focused() ?? null), Escape: () => { setPanel(""); setNaming(null); },
      };
      if (act[event.key]) { event.preventDefault(); act[event.key]!(); }
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  });

  // -- what is done to a segment --------------------------------------------------------------------------------------

  const clicked = (event: MouseEvent) => {
    const word = (event.target as HTMLElement).closest<HTMLElement>("[data-start]");
    if (word && getSelection()?.isCollapsed !== false) seek(Number(word.dataset["start"]), true);
  };
  const quote = async (segment: Segment) => {
    const chosen = getSelection()?.toString().trim(), text = chosen || segment.text;
    const start = chosen ? Number((getSelection()!.anchorNode?.parentElement?.closest("[data-start]") as HTMLElement | null)?.dataset["start"] ?? segment.start) : segment.start;
    const who = segment.speaker ? ` — ${nameOf(segment.speaker, state.speakers)}` : "";
    await navigator.clipboard.writeText(`“${text}”${who} [${clock(start)}]\n${location.origin}${location.pathname}#t=${start.toFixed(1)}`);
    setSays("The quotation was copied, with a link to its moment.");
  };
  const actions = useRef<Actions>(null!);
  actions.current = {
    edit: setEditing, done: () => setEditing(null), toggle, nudge: (by) => seek(audio.current!.currentTime + by), quote,
    draft: (id, text) => saver.draft(id, text), flush: () => saver.flush(),
    split: async (id, text, count) => {
      saver.draft(id, text); await saver.flush();
      const word = now.current.segments.find((one) => one.id === id)?.words[count];
      if (word && count) await edit({ op: "split", before: word.id });
      setEditing(null);
    },
    merge: (id) => { const next = segments[segments.findIndex((one) => one.id === id) + 1]; if (next) edit({ op: "merge", segment: id, next: next.id }); },
    remove: (id) => edit({ op: "delete", segments: [id] }),
    insert: (one) => edit({ op: "insert", after: one.id, start: one.end, end: one.end, text: "…", speaker: one.speaker }),
    name: (segment) => segment.speaker !== null ? setNaming({ speaker: segment.speaker, segment: segment.id }) : assign([segment.id], labels[0] ?? "SPEAKER_00"),
    select: (id, on) => setSelected((was) => { const next = new Set(was); if (on) next.add(id); else next.delete(id); return next; }),
  };

  if (error) return <main class="narrow"><h1><a href="/">Stenoflow</a></h1><p class="error" role="alert">{error}</p><p><a href="/">All transcripts</a></p></main>;
  return (
    <div class="viewer">
      <header>
        <div class="bar">
          <a href="/" class="home" aria-label="All transcripts">←</a>
          <h1>{about?.name}</h1>
          <span class={saving.failing ? "saved error" : "saved"} role="status">
            {saving.failing ? "Not saved yet; retrying" : saving.waiting ? "Saving…" : state.revision ? "All changes saved" : ""}
          </span>
          <button onClick={() => state.undo && edit({ op: "undo", revision: state.undo })} disabled={!state.undo} title="Undo (Ctrl+Z)">Undo</button>
          <button onClick={() => state.redo && edit({ op: "undo", revision: state.redo })} disabled={!state.redo} title="Redo (Ctrl+Shift+Z)">Redo</button>
          <button aria-expanded={panel === "find"} onClick={() => setPanel(panel === "find" ? "" : "find")}>Find</button>
          <button onClick={review} title="Next doubtful word (N)">Review{doubtful.length ? ` ${doubtful.length}` : ""}</button>
          <button aria-pressed={selected !== null} onClick={() => setSelected(selected ? null : new Set())}>Select</button>
          <button aria-expanded={panel === "history"} onClick={() => setPanel(panel === "history" ? "" : "history")}>History</button>
          <Downloads job={job} links={about?.links ?? {}} revision={state.revision} />
          <button aria-expanded={panel === "help"} onClick={() => setPanel(panel === "help" ? "" : "help")} aria-label="Keyboard shortcuts">?</button>
        </div>
        <audio ref={audio} src={`${pathOf(job)}/audio`} preload="metadata" onPlay={() => setPlaying(true)} onPause={() => setPlaying(false)}
          onSeeked={() => setTime(audio.current!.currentTime)} />
        {peaks && <Waveform peaks={peaks.peaks} perSecond={peaks.per_second} duration={duration} segments={segments} labels={labels} time={time} seek={seek} />}
        <div class="bar">
          <button class="primary play" onClick={toggle}>{playing ? "Pause" : "Play"}</button>
          <button onClick={() => seek(time - 3)} aria-label="3 seconds back">−3 s</button>
          <button onClick={() => seek(time + 3)} aria-label="3 seconds on">+3 s</button>
          <output class="time">{short(time)} / {short(duration)}</output>
          <label class="rate">Speed <select value={rate} onChange={(event) => setRate(Number(event.currentTarget.value))}>{RATES.map((one) => <option value={one}>{one}×</option>)}</select></label>
          <span class="speakers">
            {labels.map((label, i) => (
              <button class={`speaker s${i % 8}`} title={`Rename, merge or hear (key ${i + 1} assigns)`} onClick={() => setNaming({ speaker: label, segment: null })}>{nameOf(label, state.speakers)}</button>
            ))}
          </span>
        </div>
        {naming && <Naming key={naming.speaker + naming.segment} naming={naming} state={state} labels={labels} segments={segments} close={() => setNaming(null)}
          edit={edit} assign={assign} onwards={onwards} fresh={fresh}
          sample={(one) => { seek(one.start, true); stopAt.current = one.start + 5; }} />}
        {selected && <div class="panel bar" role="group" aria-label="Selected segments">
          <span>{selected.size} selected: give to</span>
          {labels.map((label, i) => <button class={`speaker s${i % 8}`} disabled={!selected.size} onClick={() => assign([...selected], label)}>{nameOf(label, state.speakers)}</button>)}
          <button disabled={!selected.size} onClick={() => assign([...selected], fresh())}>New speaker</button>
          <button disabled={!selected.size} onClick={() => { edit({ op: "delete", segments: [...selected] }); setSelected(new Set()); }}>Delete</button>
        </div>}
        {panel === "find" && <Find segments={segments} edit={edit} close={() => setPanel("")} />}
        {panel === "history" && <History job={job} revision={state.revision} />}
        {panel === "help" && <Help />}
        {conflicts.map((one, i) => (
          <div class="panel error" role="alert">
            <p>{one.detail}</p>{one.text && <p>Not saved: “{one.text}”</p>}
            <button onClick={() => setConflicts(conflicts.filter((_, j) => j !== i))}>Close</button>
          </div>
        ))}
        <p class="says" role="status">{says}</p>
      </header>
      <ol class="transcript" ref={list} onClick={clicked}>
        {segments.map((one, i) => (
          <Row key={one.id} segment={one} name={one.speaker === null ? null : nameOf(one.speaker, state.speakers)}
            color={one.speaker === null ? -1 : labels.indexOf(one.speaker) % 8} same={i > 0 && segments[i - 1]!.speaker === one.speaker}
            editing={editing === one.id} chosen={selected ? selected.has(one.id) : null} actions={actions} />
        ))}
      </ol>
    </div>
  );
}

// -- a segment --------------------------------------------------------------------------------------------------------

interface Actions {
  edit: (id: string) => void; done: () => void; toggle: () => void; nudge: (by: number) => void; quote: (segment: Segment) => void;
  draft: (id: string, text: string) => void; flush: () => Promise<void>; split: (id: string, text: string, words: number) => void;
  merge: (id: string) => void; remove: (id: string) => void; insert: (segment: Segment) => void; name: (segment: Segment) => void;
  select: (id: string, on: boolean) => void;
}
interface RowGiven { segment: Segment; name: string | null; color: number; same: boolean; editing: boolean; chosen: boolean | null; actions: { current: Actions } }

const Row = memo(({ segment, name, color, same, editing, chosen, actions }: RowGiven) => (
  <li data-segment={segment.id} tabIndex={-1} class={same ? "segment same" : "segment"}>
    <div class="margin">
      {chosen !== null && <input type="checkbox" checked={chosen} aria-label={`Select ${clock(segment.start)}`} onChange={(event) => actions.current.select(segment.id, event.currentTarget.checked)} />}
      <button class={`speaker s${color}`} onClick={(event) => { event.stopPropagation(); actions.current.name(segment); }}>{name ?? "No speaker"}</button>
      <time>{short(segment.start)}</time>
    </div>
    {editing ? <Editor segment={segment} actions={actions} /> : (
      <p class="text" dir="auto" onDblClick={() => actions.current.edit(segment.id)}>
        {segment.words.map((word) => <span id={word.id} data-start={word.start} class={word.timing === "interpolated" ? "untimed" : undefined}>{word.word}</span>)}
      </p>
    )}
    <div class="tools">
      <button onClick={() => actions.current.edit(segment.id)} aria-label={`Edit ${clock(segment.start)}`}>Edit</button>
      <button onClick={() => actions.current.quote(segment)}>Quote</button>
      <button onClick={() => actions.current.merge(segment.id)}>Join next</button>
      <button onClick={() => actions.current.insert(segment)}>Insert</button>
      <button onClick={() => actions.current.remove(segment.id)}>Delete</button>
    </div>
  </li>
), (was, is) => was.segment === is.segment && was.name === is.name && was.color === is.color && was.same === is.same
  && was.editing === is.editing && was.chosen === is.chosen);

function Editor({ segment, actions }: { segment: Segment; actions: { current: Actions } }) {
  const box = useRef<HTMLTextAreaElement>(null);
  const timer = useRef(0), since = useRef(0);
  const initial = useMemo(() => segment.text, []);
  const typed = () => {
    const field = box.current!;
    field.style.height = "auto"; field.style.height = `${field.scrollHeight}px`;
    actions.current.draft(segment.id, field.value);
    since.current ||= Date.now();
    clearTimeout(timer.current);
    timer.current = setTimeout(send, Math.max(0, Math.min(700, since.current + 1500 - Date.now())));
  };
  const send = () => { since.current = 0; clearTimeout(timer.current); actions.current.flush(); };
  useEffect(() => {
    const field = box.current!;
    field.value = initial; field.style.height = `${field.scrollHeight}px`;
    field.focus();
    return () => { if (since.current) send(); };
  }, []);
  return (
    <div class="editor">
      <textarea ref={box} dir="auto" rows={1} aria-label="Text" aria-describedby="typing-help" onInput={typed}
        onBlur={(event) => { if (!(event.relatedTarget as HTMLElement | null)?.closest(".editor")) actions.current.done(); }}
        onKeyDown={(event) => {
          const key = event.key;
          if (key === "Escape" || (key === "Tab" && !event.shiftKey)) { event.preventDefault(); event.stopPropagation(); actions.current.toggle(); }
          else if (event.altKey && (key === "ArrowLeft" || key === "ArrowRight")) { event.preventDefault(); actions.current.nudge(key === "ArrowLeft" ? -3 : 3); }
          else if (key === "Enter") {
            event.preventDefault();
            const field = box.current!, head = field.value.slice(0, field.selectionStart);
            if (event.shiftKey) actions.current.split(segment.id, field.value, head.split(/\s+/).filter(Boolean).length);
            else { actions.current.done(); requestAnimationFrame(() => document.querySelector<HTMLElement>(`[data-segment="${CSS.escape(segment.id)}"]`)?.focus()); }
          }
        }} />
      <p class="hint" id="typing-help">Saved as you type. Esc or Tab: play and pause · Alt+arrows: 3 s · Shift+Enter: split here · Enter: done</p>
    </div>
  );
}

// -- panels -----------------------------------------------------------------------------------------------------------

interface NamingGiven {
  naming: { speaker: string; segment: string | null }; state: State; labels: string[]; segments: Segment[]; close: () => void;
  edit: (...operations: Operation[]) => Promise<void>; assign: (ids: string[], speaker: string) => void; onwards: (id: string) => string[];
  fresh: () => string; sample: (segment: Segment) => void;
}

function Naming({ naming, state, labels, segments, close, edit, assign, onwards, fresh, sample }: NamingGiven) {
  const { speaker, segment } = naming, name = nameOf(speaker, state.speakers);
  const [value, setValue] = useState(state.speakers[speaker] === speaker ? "" : name);
  const [on, setOn] = useState(false);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current!.focus(), []);
  const give = (to: string) => { if (segment) assign(on ? onwards(segment) : [segment], to); close(); };
  const longest = segments.filter((one) => one.speaker === speaker).sort((a, b) => b.end - b.start - (a.end - a.start))[0];
  return (
    <div class="panel" role="group" aria-label={`Speaker ${name}`} onKeyDown={(event) => { if (event.key === "Escape") { event.stopPropagation(); close(); } }}>
      {segment && labels.length > 0 && <div class="bar">
        <span>This segment was spoken by</span>
        {labels.map((label, i) => label !== speaker && <button class={`speaker s${i % 8}`} onClick={() => give(label)}>{nameOf(label, state.speakers)}</button>)}
        <button onClick={() => give(fresh())}>New speaker</button>
        <label><input type="checkbox" checked={on} onChange={(event) => setOn(event.currentTarget.checked)} /> and all of {name} from here on</label>
      </div>}
      <form class="bar" onSubmit={(event) => { event.preventDefault(); edit({ op: "name", speaker, name: value }); close(); }}>
        <label>Name of {name} everywhere <input ref={field} value={value} onInput={(event) => setValue(event.currentTarget.value)} maxLength={200} /></label>
        <button class="primary">Rename</button>
        {labels.length > 1 && <label>Same as <select value="" onChange={(event) => { edit({ op: "merge_speakers", speaker, into: event.currentTarget.value }); close(); }}>
          <option value="">…</option>{labels.filter((label) => label !== speaker).map((label) => <option value={label}>{nameOf(label, state.speakers)}</option>)}
        </select></label>}
        {longest && <button type="button" onClick={() => sample(longest)}>Hear 5 s</button>}
        <button type="button" onClick={close}>Close</button>
      </form>
    </div>
  );
}

function Find({ segments, edit, close }: { segments: Segment[]; edit: (...operations: Operation[]) => Promise<void>; close: () => void }) {
  const [find, setFind] = useState(""), [replace, setReplace] = useState("");
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => { field.current!.focus(); return () => mark("found", []); }, []);
  const pattern = useMemo(() => find ? new RegExp(find.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "giu") : null, [find]);
  const hits = useMemo(() => pattern ? segments.filter((one) => one.text.search(pattern) >= 0) : [], [pattern, segments]);
  const total = hits.reduce((sum, one) => sum + one.text.match(pattern!)!.length, 0);
  const after = (one: Segment) => one.text.replace(pattern!, () => replace);
  useEffect(() => {
    const elements = hits.slice(0, 200).flatMap((one) => one.words.filter((word) => pattern && word.word.search(pattern) >= 0).map((word) => document.getElementById(word.id)));
    mark("found", elements.filter((one) => one !== null));
  }, [hits]);
  const go = (id: string) => { const row = document.querySelector<HTMLElement>(`[data-segment="${CSS.escape(id)}"]`); if (row) { show(row); row.focus(); } };
  return (
    <form class="panel" role="search" onSubmit={(event) => { event.preventDefault(); if (hits[0]) go(hits[0].id); }}
      onKeyDown={(event) => { if (event.key === "Escape") close(); }}>
      <div class="bar">
        <label>Find <input ref={field} value={find} onInput={(event) => setFind(event.currentTarget.value)} /></label>
        <label>Replace with <input value={replace} onInput={(event) => setReplace(event.currentTarget.value)} /></label>
        <button type="button" disabled={!hits.length} onClick={() => edit(...hits.map((one) => ({ op: "text", segment: one.id, text: after(one) })))}>Replace all</button>
        <span role="status">{find && `${total} in ${hits.length} segments`}</span>
        <button type="button" onClick={close}>Close</button>
      </div>
      <ul class="hits">{hits.slice(0, 50).map((one) => (
        <li><button type="button" onClick={() => go(one.id)}>{short(one.start)}</button> {replace ? <><del>{one.text}</del> <ins>{after(one)}</ins></> : one.text}</li>
      ))}</ul>
    </form>
  );
}

function History({ job, revision }: { job: string; revision: number }) {
  const [revisions, setRevisions] = useState<Revision[]>([]);
  const [shown, setShown] = useState<{ revision: number; lines: string[] } | null>(null);
  useEffect(() => { ask<{ revisions: Revision[] }>(`${pathOf(job)}/revisions`).then((found) => setRevisions(found.revisions.reverse())); }, [revision]);
  const difference = async (number: number) => {
    const changes = await ask<Changes>(`${pathOf(job)}/revisions/${number}?since=${number - 1}`);
    setShown({ revision: number, lines: [...changes.segments.map((one) => `${clock(one.start)} ${one.text}`), ...changes.removed.map(() => "a segment was removed")] });
  };
  return (
    <div class="panel history">
      {revisions.length === 0 && <p>No corrections yet.</p>}
      <ol reversed>{revisions.map((one) => (
        <li value={one.revision} class={one.active ? "" : "undone"}>
          <button onClick={() => difference(one.revision)}>{new Date(one.at).toLocaleTimeString()}</button> {summary(one.operations)}
          {one.left_out.length > 0 && <><p>Corrections of the transcript before that do not fit this one:</p><ul>{one.left_out.map((said) => <li>{said}</li>)}</ul></>}
          {shown?.revision === one.revision && <ul>{shown.lines.map((line) => <li>{line}</li>)}</ul>}
        </li>
      ))}</ol>
      <p><a href={`${pathOf(job)}.txt?revision=0`}>The original text</a></p>
    </div>
  );
}

/** Whoever pauses before the sound has arrived interrupts a promise, and nothing is wrong. */
function begin(player: HTMLAudioElement): void {
  player.play().catch((error: Error) => { if (error.name !== "AbortError") throw error; });
}

function summary(operations: Operation[]): string {
  const first = operations[0], more = operations.length > 1 ? ` and ${operations.length - 1} more` : "";
  switch (first?.op) {
    case "replace": return (first.text ? `wrote “${String(first.text)}”` : "deleted words") + more;
    case "name": return `named ${String(first.speaker)} “${String(first.name)}”` + more;
    case "assign": return `gave ${(first.segments as string[]).length} segments to ${String(first.speaker)}` + more;
    case "undo": return `undid revision ${String(first.revision)}`;
    case undefined: return "no change";
    default: return String(first!.op).replace("_", " ") + more;
  }
}

function Downloads({ job, links, revision }: { job: string; links: Record<string, string>; revision: number }) {
  const formats = FORMATS.filter((one) => one in links || ["srt", "vtt", "txt", "json", "tsv"].includes(one));
  return (
    <details class="menu">
      <summary>Download</summary>
      <ul>{formats.map((one) => <li><a download={`transcript.${one}`} href={`${pathOf(job)}.${one}?revision=${revision}`}>{one}</a></li>)}</ul>
    </details>
  );
}

const Help = () => (
  <dl class="panel help">
    {([["Click a word", "play it"], ["Space", "play, pause"], ["← →", "3 seconds"], ["↑ ↓", "previous, next segment"], ["Double-click, Enter", "correct a segment"],
      ["1–9", "give the segment to a speaker; with Shift, all from here on"], ["N", "next doubtful word"], ["Ctrl+F", "find and replace"],
      ["Ctrl+Z, Ctrl+Shift+Z", "undo, redo"], ["Esc, Tab while typing", "play, pause"], ["Shift+Enter while typing", "split"]]).map(([key, what]) => <div><dt>{key}</dt><dd>{what}</dd></div>)}
  </dl>
);

// -- helpers ----------------------------------------------------------------------------------------------------------

/** The last word that has begun. */
function before(words: Timed[], time: number): number {
  let low = 0, high = words.length;
  while (low < high) { const middle = (low + high) >> 1; if (words[middle]!.word.start <= time + 0.001) low = middle + 1; else high = middle; }
  return low - 1;
}

/** The segments after the changes, in their order. */
export function changed(segments: Segment[], changes: Changes): Segment[] {
  const gone = new Set([...changes.removed, ...changes.segments.map((one) => one.id)]);
  const next = segments.filter((one) => !gone.has(one.id));
  for (const { after, ...segment } of changes.segments) next.splice(after === null ? 0 : next.findIndex((one) => one.id === after) + 1, 0, segment);
  return next;
}

function mark(name: string, elements: Element[]) {
  if (!("highlights" in CSS)) return;
  CSS.highlights.set(name, new Highlight(...elements.map((element) => { const range = new Range(); range.selectNodeContents(element); return range; })));
}

function show(element: HTMLElement) {
  const box = element.getBoundingClientRect(), top = document.querySelector("header")?.getBoundingClientRect().bottom ?? 0;
  if (box.top < top + 20 || box.bottom > innerHeight - 60)
    scrollBy({ top: box.top - top - (innerHeight - top) / 3, behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth" });
}
