"""The style sheet of the report's page: light and dark, and as narrow as a phone."""

from __future__ import annotations

STYLES = """
:root {
  color-scheme: light dark;
  --surface: #fdfdfe; --raised: #f3f5f8; --line: #d3d8e0; --text: #1c222b; --quiet: #56606e;
  --bad: #a3261b; --good: #1d6b37; --mark: #fbe8a6;
  --c0: #1d4fc4; --c1: #b35c00; --c2: #7b3fb0; --c3: #0b7a75; --c4: #6b7280; --c5: #a3195b;
  font: 100%/1.5 system-ui, sans-serif; background: var(--surface); color: var(--text);
}
@media (prefers-color-scheme: dark) {
  :root {
    --surface: #14181d; --raised: #1d232a; --line: #3a434f; --text: #e7ebf0; --quiet: #a8b3c1;
    --bad: #ff9c8f; --good: #7fd69b; --mark: #57491a;
    --c0: #86b0ff; --c1: #ffb45e; --c2: #d0a6f5; --c3: #5fd3cb; --c4: #aab2be; --c5: #ff9ecb;
  }
}
*, ::before, ::after { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem 1rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 0.5rem; }
h3 { font-size: 1rem; margin: 1rem 0 0.25rem; }
p { margin: 0.25rem 0 0.75rem; }
.quiet { color: var(--quiet); font-size: 0.9rem; }
.bad { color: var(--bad); }
.good { color: var(--good); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: break-word; }
th, td { text-align: left; padding: 0.3rem 0.9rem 0.3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td bdi { display: inline-block; min-width: 10rem; }
td small { color: var(--quiet); white-space: nowrap; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1rem 2rem; }
figure { margin: 0; }
svg { display: block; width: 100%; max-width: 32rem; height: auto; }
.grid { stroke: var(--line); }
.diagonal { stroke: var(--quiet); stroke-dasharray: 3 4; }
.tick { font-size: 11px; fill: var(--quiet); text-anchor: middle; }
.tick.left { text-anchor: end; }
.line polyline { fill: none; stroke: var(--colour); stroke-width: 2; stroke-dasharray: var(--dash); }
.line circle { fill: var(--colour); }
.bin { fill: var(--c0); fill-opacity: 0.55; stroke: var(--c0); }
.s0 { --colour: var(--c0); --dash: none; }
.s1 { --colour: var(--c1); --dash: 8 3; }
.s2 { --colour: var(--c2); --dash: 2 3; }
.s3 { --colour: var(--c3); --dash: 6 3 2 3; }
.s4 { --colour: var(--c4); --dash: 4 4; }
.s5 { --colour: var(--c5); --dash: 10 3 2 3 2 3; }
.key { display: inline-block; width: 1.6rem; height: 0.7rem; max-width: none; vertical-align: baseline; }
ul.legend { list-style: none; padding: 0; margin: 0.25rem 0; }
details { border-bottom: 1px solid var(--line); padding: 0.4rem 0; }
summary { cursor: pointer; }
summary .share { display: inline-block; min-width: 3.2rem; font-variant-numeric: tabular-nums; }
blockquote { margin: 0.4rem 0; padding: 0.4rem 0.7rem; background: var(--raised); white-space: pre-wrap; }
blockquote.hit { background: var(--mark); }
""".strip()
