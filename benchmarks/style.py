"""The style sheet of the report: system fonts, one accent colour, light and dark."""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #16181d; --soft: #5c6370; --rule: #e3e5ea; --wash: #f5f6f8;
  --accent: #1f5fd0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #121418; --ink: #e6e8ec; --soft: #98a0ad; --rule: #2b2f37; --wash: #1a1d23;
    --accent: #7aa9ff;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
    sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 1200px; margin: 0 auto; padding: 56px 24px 96px; }
h1 {
  font-size: 34px; line-height: 1.15; letter-spacing: -0.015em; margin: 6px 0 14px; overflow-wrap: anywhere;
}
h2 {
  font-size: 22px; letter-spacing: -0.01em; margin: 64px 0 6px; padding-top: 18px;
  border-top: 1px solid var(--rule);
}
h3 { font-size: 18px; margin: 48px 0 4px; }
h4 { font-size: 15px; margin: 30px 0 2px; }
p { margin: 8px 0; max-width: 74ch; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
code, pre { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre {
  background: var(--wash); border-radius: 6px; padding: 12px 14px; margin: 10px 0;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
.eyebrow { font-size: 13px; font-weight: 600; color: var(--accent); letter-spacing: 0.01em; }
.lead { font-size: 20px; line-height: 1.45; max-width: 60ch; margin: 0 0 22px; }
.soft { color: var(--soft); }
.small { font-size: 13.5px; }
dl.facts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 14px 28px;
  margin: 26px 0 0;
}
dl.facts div { min-width: 0; }
dl.facts dt { font-size: 13px; color: var(--soft); }
dl.facts dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 14px 0; }
table { border-collapse: collapse; font-size: 14px; }
table.wide { width: 100%; font-size: 13px; }
table.wide th { white-space: normal; font-size: 12px; }
table.wide :is(th, td):not(:last-child) { padding-right: 10px; }
table.numbers:not(.wide) :is(th, td) { padding-right: 32px; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 13px; vertical-align: bottom; }
th, td { padding: 7px 16px 7px 0; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
td.figure, th.figure { text-align: right; }
td.model { font-weight: 600; }
td.beats { color: var(--accent); font-weight: 600; }
td.below, td.undefined { color: var(--soft); }
ul.notes { margin: 10px 0; padding-left: 18px; font-size: 13.5px; color: var(--soft); }
.glance { margin: 30px 0 8px; }
.glance .row, .glance .axis {
  display: grid; grid-template-columns: 205px 1fr 250px 76px; gap: 18px; align-items: center;
}
.glance .row { padding: 7px 0; }
.glance .axis { font-size: 12.5px; color: var(--soft); }
.glance .value { text-align: right; font-size: 14px; white-space: nowrap; }
.glance .value b { font-weight: 600; }
.glance .said { font-size: 13px; color: var(--soft); }
.glance .said.beats { color: var(--accent); font-weight: 600; }
.bar { position: relative; height: 18px; min-width: 180px; }
.bar i { position: absolute; display: block; }
.bar .track { top: 5px; height: 8px; background: var(--wash); border-radius: 2px; }
.bar .fill { top: 5px; height: 8px; background: var(--accent); opacity: .42; border-radius: 2px; }
.bar .fill.worse { background: var(--soft); }
.bar .end { top: 0; height: 18px; width: 1px; background: var(--soft); }
.bar .span, .bar .cap, .bar .dot { background: var(--accent); }
.bar .span { top: 8px; height: 2px; }
.bar .cap { top: 4px; height: 10px; width: 2px; margin-left: -1px; }
.bar .dot { top: 5px; height: 8px; width: 8px; margin-left: -4px; border-radius: 50%; }
.bar .rival {
  top: 4px; height: 9px; width: 9px; margin-left: -5px; border: 2px solid var(--ink); box-sizing: border-box;
  transform: rotate(45deg);
}
.legend { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 8px; color: var(--soft); }
.legend .bar { min-width: 0; width: 10px; margin-left: 12px; }
.legend .bar:first-child { margin-left: 0; }
.legend .bar i { left: 5px; }
.bar .tick { top: 0; transform: translateX(-50%); font-style: normal; white-space: nowrap; }
.pictures td, .pictures th { border: 0; padding: 0 14px 12px 0; vertical-align: top; }
.pictures th { padding-bottom: 6px; }
.pictures td.which { font-size: 13px; line-height: 1.45; min-width: 116px; white-space: normal; }
.pictures td.which b { display: block; font-weight: 600; }
.pictures .frames { display: flex; gap: 4px; }
.pictures img {
  display: block; width: var(--width); height: auto; border-radius: 3px;
  background: var(--wash); box-shadow: 0 0 0 1px var(--rule);
}
.pictures img.frame { image-rendering: pixelated; }
.pictures img.drawn { width: max(var(--width), 184px); }
.pictures figcaption { font-size: 12px; color: var(--soft); margin-top: 2px; }
.pictures figure { margin: 0; }
.curves svg { width: 100%; height: auto; }
.sparsification { margin: 14px 0; max-width: 720px; overflow-x: auto; }
.sparsification svg { width: 100%; min-width: 480px; height: auto; }
.sparsification figcaption { font-size: 13.5px; color: var(--soft); max-width: 74ch; }
.drift { margin: 14px 0; overflow-x: auto; }
.drift svg { width: 100%; min-width: 640px; height: auto; }
.drift figcaption { font-size: 13.5px; color: var(--soft); max-width: 74ch; }
.pictures.strip td, .pictures.strip th { padding: 0 6px 6px 0; }
.pictures.strip td.which { min-width: 64px; vertical-align: middle; }
.definitions p { font-size: 14.5px; color: var(--soft); margin: 4px 0; }
details { margin: 10px 0; }
summary { cursor: pointer; color: var(--accent); font-size: 14px; }
nav { font-size: 14px; margin-top: 26px; display: flex; flex-wrap: wrap; gap: 4px 18px; }
@media (max-width: 760px) {
  main { padding: 28px 16px 64px; }
  .glance .row { grid-template-columns: 1fr auto; gap: 2px 12px; }
  .glance .row .bar { grid-column: 1 / -1; grid-row: 2; }
  .glance .axis { display: none; }
  .glance .said { display: none; }
}
@media print { details > * { display: block; } h3 { break-after: avoid; } tr { break-inside: avoid; } }
"""
