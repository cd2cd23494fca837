/** Corrections on their way to the service: kept in this browser until it has acknowledged them, sent in order, one at a time. */
import { ask, type Changes, type Operation, pathOf, Refused } from "./api";

interface Pending { base: number; operations: Operation[] }
export interface Status { waiting: number; failing: boolean }

export class Saver {
  private pending: Pending[];
  private sending = false;
  constructor(
    private readonly job: string,
    private readonly revision: () => number,
    private readonly apply: (changes: Changes) => void,
    private readonly conflict: (operations: Operation[], detail: string) => Promise<void>,
    private readonly report: (status: Status) => void,
  ) {
    this.pending = this.stored();
  }

  private get key() { return `steno-edits-${this.job}`; }

  private stored(): Pending[] {
    try { return JSON.parse(localStorage.getItem(this.key) ?? "[]"); } catch { return []; }
  }

  private keep() {
    if (this.pending.length) localStorage.setItem(this.key, JSON.stringify(this.pending));
    else localStorage.removeItem(this.key);
  }

  /** What is typed now, on the disk before it is sent. A later draft of the same segment takes its place while it waits. */
  draft(segment: string, text: string) {
    const last = this.pending.at(-1);
    const operation = { op: "text", segment, text };
    if (last && !(this.sending && this.pending.length === 1) && last.operations.length === 1
      && last.operations[0]!.op === "text" && last.operations[0]!.segment === segment) last.operations = [operation];
    else this.pending.push({ base: this.revision(), operations: [operation] });
    this.keep();
  }

  add(...operations: Operation[]): Promise<void> {
    this.pending.push({ base: this.revision(), operations });
    this.keep();
    return this.flush();
  }

  /** Send what waits; returns when all of it has arrived. */
  async flush(): Promise<void> {
    while (this.sending) await new Promise((wake) => setTimeout(wake, 50));
    this.sending = true;
    try {
      while (this.pending.length) {
        const first = this.pending[0]!;
        this.report({ waiting: this.pending.length, failing: false });
        try {
          const changes = await ask<Changes>(`${pathOf(this.job)}/edits`, "PATCH", first);
          // What waits behind it was made on what it left.
          for (const later of this.pending.slice(1)) later.base = Math.max(later.base, changes.revision);
          this.apply(changes);
        } catch (error) {
          if (!(error instanceof Refused) || error.status >= 500 || error.status === 429 || error.status === 401) {
            this.report({ waiting: this.pending.length, failing: true });
            await new Promise((wake) => setTimeout(wake, 1000));
            continue;
          }
          await this.conflict(first.operations, error.message);
        }
        this.pending.shift();
        this.keep();
      }
      this.report({ waiting: 0, failing: false });
    } finally { this.sending = false; }
  }
}
