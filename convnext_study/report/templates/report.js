"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Tables: missing values last in both directions, equal ones in their previous order.
  const value = (row, column) => {
    const text = row.cells[column].dataset.value;
    if (text === undefined) return null;
    const number = Number(text);
    return text !== "" && Number.isFinite(number) ? number : text;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  const sort = (table, head) => {
    const column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    all("th", table).forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].sort((a, b) => {
      const left = value(a, column), right = value(b, column);
      if (left === null || right === null) return (left === null) - (right === null);
      return down ? compare(right, left) : compare(left, right);
    });
    body.append(...rows);
  };
  all("table[data-sort]").forEach((table) =>
    all("th button", table).forEach((button) =>
      button.addEventListener("click", () => sort(table, button.closest("th")))));

  // Steps: a row of the figure opens its panel, whose state is shown on the figure's rows.
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const openers = (panel) => all(`[aria-controls="${panel.id}"]`);
  const show = (panel) => {
    panel.open = true;
    panel.scrollIntoView({ block: "start", behavior: still ? "auto" : "smooth" });
    panel.querySelector("summary").focus({ preventScroll: true });
  };
  const toggle = (step) => {
    const panel = document.getElementById(step.getAttribute("aria-controls"));
    if (panel.open) panel.open = false;
    else show(panel);
  };
  all(".step").forEach((step) => {
    step.addEventListener("click", () => toggle(step));
    step.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      toggle(step);
    });
  });
  const key = `open:${location.pathname}`;
  const remember = () => {
    try {
      sessionStorage.setItem(key, all("details[open][id]").map((panel) => panel.id).join(" "));
    } catch { /* storage may be off: then a reload closes the panels */ }
  };
  all("details[id]").forEach((panel) =>
    panel.addEventListener("toggle", () => {
      openers(panel).forEach((step) => step.setAttribute("aria-expanded", String(panel.open)));
      remember();
    }));
  const follow = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") show(target);
  };
  addEventListener("hashchange", follow);
  all('a[href^="#"]').forEach((link) =>
    link.addEventListener("click", () => { if (link.hash === location.hash) follow(); }));
  try {
    (sessionStorage.getItem(key) || "").split(" ").forEach((id) => {
      const panel = id && document.getElementById(id);
      if (panel) panel.open = true;
    });
  } catch { /* as above */ }
  follow();

  // Tips: the numbers of the element under the pointer or with the focus.
  const tip = document.getElementById("tip");
  const moveTip = (x, y) => {
    const size = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(6, Math.min(x + 14, innerWidth - size.width - 6))}px`;
    tip.style.top = `${y + 18 + size.height > innerHeight ? Math.max(6, y - size.height - 12) : y + 18}px`;
  };
  const showTip = (event) => {
    const owner = event.target.closest && event.target.closest("[data-tip]");
    tip.hidden = !owner;
    if (!owner) return;
    tip.textContent = owner.dataset.tip;
    const box = owner.getBoundingClientRect();
    moveTip(event.clientX ?? box.left + box.width / 3, event.clientY ?? box.bottom - 14);
  };
  const hide = () => { tip.hidden = true; };
  document.addEventListener("pointermove", showTip);
  document.addEventListener("pointerleave", hide);
  document.addEventListener("focusin", (event) => {
    if (event.target.matches(":focus-visible")) showTip(event);
  });
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, { passive: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // Curves: one row's runs in front of the others'.
  all("[data-pick]").forEach((select) =>
    select.addEventListener("change", () => {
      const section = select.closest("section");
      section.classList.toggle("picking", select.value !== "");
      all(".curve", section).forEach((curve) => {
        const picked = curve.dataset.row === select.value;
        curve.classList.toggle("picked", picked);
        if (picked) curve.parentNode.append(curve);
      });
    }));
})();
