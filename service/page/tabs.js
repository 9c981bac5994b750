/** Tabs: one panel is shown, and the arrow keys lead from one tab to the next. */

import { byId } from "./dom.js";

/** Let these tabs, each of which names its panel, be chosen; the first is at the beginning. */
export function startTabs(ids) {
  const tabs = ids.map(byId);
  const choose = (chosen) => {
    for (const tab of tabs) {
      tab.ariaSelected = String(tab === chosen);
      tab.tabIndex = tab === chosen ? 0 : -1;
      byId(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
    }
  };
  const beside = { ArrowLeft: -1, ArrowRight: 1 };
  for (const [number, tab] of tabs.entries()) {
    tab.onclick = () => choose(tab);
    tab.onkeydown = ({ key }) => {
      if (!(key in beside)) return;
      const next = tabs.at((number + beside[key]) % tabs.length);
      choose(next);
      next.focus();
    };
  }
  choose(tabs[0]);
}
