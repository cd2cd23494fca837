/** The whole recording, a lane per speaker. Drawn when it or the speakers change; only the playhead moves in between. */
import { useEffect, useRef, useState } from "preact/hooks";
import { clock, type Segment } from "./api";

interface Given { peaks: number[]; perSecond: number; duration: number; segments: Segment[]; labels: string[]; time: number; seek: (to: number) => void }

export function Waveform({ peaks, perSecond, duration, segments, labels, time, seek }: Given) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [size, setSize] = useState(0);
  useEffect(() => {
    const resized = () => setSize(innerWidth);
    const scheme = matchMedia("(prefers-color-scheme: dark)"), recolored = () => setSize((was) => was + 0.001);
    addEventListener("resize", resized); scheme.addEventListener("change", recolored);
    return () => { removeEventListener("resize", resized); scheme.removeEventListener("change", recolored); };
  }, []);
  const lanes = Math.max(1, Math.min(labels.length, 6)), height = Math.max(44, lanes * 22);
  useEffect(() => {
    const element = canvas.current!, scale = devicePixelRatio, width = element.clientWidth;
    element.width = width * scale; element.height = height * scale;
    const pen = element.getContext("2d")!, style = getComputedStyle(element);
    pen.scale(scale, scale);
    const colorOf = (name: string) => { element.style.color = `var(${name})`; return style.color; };
    const quiet = colorOf("--line"), colors = labels.map((_, i) => colorOf(`--speaker-${i % 8}`)), plain = colorOf("--accent");
    const lane = height / lanes, loudest = Math.max(1, ...sampled(peaks));
    let at = 0;
    for (let x = 0; x < width; x += 2) {
      const from = (x / width) * duration, to = ((x + 2) / width) * duration;
      let peak = 0;
      for (let i = Math.floor(from * perSecond); i <= to * perSecond && i < peaks.length; i++) peak = Math.max(peak, peaks[i]!);
      while (at < segments.length && segments[at]!.end < from) at++;
      const spoken = new Set<number>();
      for (let i = at; i < segments.length && segments[i]!.start <= to; i++)
        if (segments[i]!.end >= from) spoken.add(Math.max(0, labels.indexOf(segments[i]!.speaker ?? "")) % lanes);
      for (let number = 0; number < lanes; number++) {
        const tall = spoken.has(number) ? Math.max(2, Math.sqrt(peak / loudest) * (lane - 4)) : 1;
        pen.fillStyle = spoken.has(number) && colors.length ? colors[number]! : spoken.has(number) ? plain : quiet;
        pen.fillRect(x, number * lane + (lane - tall) / 2, 1.4, tall);
      }
    }
  }, [peaks, segments, labels.join(), size, duration]);
  const moved = (event: PointerEvent) => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    seek(((event.clientX - box.left) / box.width) * duration);
  };
  return (
    <div class="waveform" role="slider" tabIndex={0} aria-label="Position" aria-valuemin={0} aria-valuemax={Math.round(duration)}
      aria-valuenow={Math.round(time)} aria-valuetext={clock(time)} onPointerDown={moved}
      onKeyDown={(event) => {
        const step = { ArrowLeft: -5, ArrowRight: 5, PageUp: -60, PageDown: 60 }[event.key];
        if (step) { event.preventDefault(); event.stopPropagation(); seek(time + step); }
      }}>
      <canvas ref={canvas} style={{ height: `${height}px` }} />
      <div class="playhead" style={{ left: `${(100 * time) / (duration || 1)}%` }} />
    </div>
  );
}

/** Enough of them for the loudest: an argument list has its limits. */
const sampled = (peaks: number[]) => peaks.length < 20000 ? peaks : peaks.filter((_, i) => i % Math.ceil(peaks.length / 20000) === 0);
