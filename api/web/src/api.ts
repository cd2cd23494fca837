/** What the page asks of the API, on the origin that it came from. */

export interface Word { id: string; word: string; start: number; end: number; score: number; timing: string }
export interface Segment { id: string; start: number; end: number; speaker: string | null; text: string; words: Word[] }
export interface State { revision: number; speakers: Record<string, string>; undo: number | null; redo: number | null }
export interface SegmentPage extends State { language: string; duration: number; total: number; segments: Segment[] }
export interface Changes extends State { merged: boolean; segments: (Segment & { after: string | null })[]; removed: string[] }
export interface Job {
  job_id: string; status: string; message: string; name: string; created_at: string;
  progress?: number; error?: string; links?: Record<string, string>; warnings?: string[];
}
export interface Revision { revision: number; at: string; by: string; operations: Operation[]; active: boolean; left_out: string[] }
export type Operation = { op: string } & Record<string, unknown>;

export class Refused extends Error {
  constructor(readonly status: number, readonly code: string, detail: string) { super(detail); }
}

/** Called when the service wants a key. */
export const signedOut = { listener: () => {} };

export async function ask<T>(path: string, method = "GET", body?: unknown): Promise<T> {
  const answer = await fetch(path, {
    method,
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? null : JSON.stringify(body),
  });
  if (answer.ok) return (answer.status === 204 ? undefined : await answer.json()) as T;
  throw await refusal(answer.status, await answer.text());
}

export function refusal(status: number, text: string): Refused {
  let problem: { code?: string; detail?: string } = {};
  try { problem = JSON.parse(text); } catch { /* what a proxy says */ }
  if (status === 401) signedOut.listener();
  return new Refused(status, problem.code ?? "", problem.detail ?? `The service answered ${status}.`);
}

export const pathOf = (job: string) => `/transcribes/${encodeURIComponent(job)}`;

/** Shown where a speaker has no name. */
export function nameOf(label: string, names: Record<string, string>): string {
  const name = names[label] ?? label, number = name === label ? label.match(/^SPEAKER_(\d+)$/) : null;
  return number ? `Speaker ${Number(number[1]) + 1}` : name;
}

/** Without hours where there are none. */
export const short = (seconds: number) => clock(seconds).replace(/^0:0?/, "");

export function clock(seconds: number): string {
  const whole = Math.floor(seconds), two = (n: number) => String(n).padStart(2, "0");
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}
