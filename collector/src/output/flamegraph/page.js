"use strict";
addEventListener("load", () => {
  const XHTML = "http://www.w3.org/1999/xhtml";
  const svg = document.querySelector("svg");
  const pad = +svg.dataset.pad, gap = +svg.dataset.gap;
  const inPage = svg !== document.documentElement;
  const row = matchMedia("(pointer: coarse)").matches ? 24 : 17;

  // The frames, parents before their children.
  const above = [];
  const frames = [...svg.querySelectorAll("#frames > g")].map((group, index) => {
    const [title, rect, text] = ["title", "rect", "text"].map((tag) => group.querySelector(tag));
    const [name, numbers] = title.textContent.split("\n");
    title.remove();
    group.setAttribute("aria-label", name + ", " + numbers);
    const { n, b, l } = group.dataset;
    const times = (group.dataset.t || "").split(" ").filter(Boolean).map((pair) => pair.split(":").map(Number));
    const frame = { group, rect, text, name, numbers, times, index, level: +l, now: +n, before: +(b || 0), count: 0, start: 0, children: [] };
    above.length = frame.level;
    frame.parent = above[frame.level - 1];
    if (frame.parent) frame.parent.children.push(frame);
    above.push(frame);
    return frame;
  });
  const byGroup = new Map(frames.map((frame) => [frame.group, frame]));
  const root = frames[0];
  const letter = (() => {
    root.text.textContent = "m".repeat(100);
    return root.text.getComputedTextLength() / 100 || 7.25;
  })();

  // What the picture says, as a page that wraps.
  const make = (tag, parent, content) => {
    const element = document.createElementNS(XHTML, tag);
    if (content !== undefined) element.textContent = content;
    if (parent) parent.append(element);
    return element;
  };
  const frameFor = (content) => {
    const foreign = document.createElementNS("http://www.w3.org/2000/svg", "foreignObject");
    foreign.append(content);
    svg.append(foreign);
    return foreign;
  };
  const head = svg.querySelector("#head");
  const bar = make("div");
  bar.className = "bar";
  make("h1", bar, head.querySelector("#title").textContent);
  make("p", bar, head.querySelector("#subtitle").textContent);
  const legend = make("p", bar);
  for (const box of head.querySelectorAll("rect.legend")) {
    const entry = make("span", legend);
    make("i", entry).style.background = box.getAttribute("fill");
    entry.append(box.nextElementSibling.textContent);
  }
  head.remove();
  const tools = make("div", bar);
  tools.className = "tools";
  const field = make("input", tools);
  field.type = "search";
  field.placeholder = "Search";
  field.title = "/ or Ctrl-F: a regular expression; capital letters are meant. Enter: the next match";
  field.setAttribute("aria-label", field.title);
  const button = (label, title, act) => {
    const made = make("button", tools, label);
    made.type = "button";
    made.title = title;
    made.addEventListener("click", act);
    return made;
  };
  const turn = button("", "i: the other way up", () => {
    rootOnTop = !rootOnTop;
    layout();
    look();
  });
  const which = "before" in svg.dataset && button("", "b: widths of the other profile", other);
  const reset = button("Reset", "Esc: everything, without a search", back);
  const matched = make("output", tools);
  const strip = +svg.dataset.slots > 1 && timeStrip(+svg.dataset.slots, +svg.dataset.slotSeconds);
  const barBox = inPage ? null : frameFor(bar);
  if (inPage) svg.before(bar);
  const tip = make("div");
  tip.className = "tip";
  tip.setAttribute("role", "status");
  const tipBox = frameFor(tip);
  tipBox.id = "tip";
  tipBox.classList.add("hidden");

  let zoomed = root, current = null, rootOnTop = (inPage ? document.documentElement.clientWidth : innerWidth) < 640, widths = "now", pattern = "";
  let width = 0;

  function count() {
    const chosen = strip && strip.chosen;
    for (const frame of frames) {
      frame.count = !chosen ? frame[widths] : frame.times.reduce(
        (sum, [slot, n]) => slot >= chosen[0] && slot <= chosen[1] ? sum + n : sum, 0);
      frame.next = frame.start = frame.parent ? frame.parent.next : 0;
      if (frame.parent) frame.parent.next += frame.count;
    }
  }

  // Samples over time, of which a part can be chosen: by a pointer, or by arrow keys.
  function timeStrip(slots, seconds) {
    const line = make("p", bar);
    const box = make("div", bar);
    box.className = "strip";
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Part of the time: arrow keys move it, with Shift they stretch it, Esc is all of it");
    const bars = Array.from({ length: slots }, () => make("i", box));
    const strip = { chosen: null };
    const time = (slot) => {
      const at = slot * seconds, rest = String(at % 60);
      return at < 60 ? at + " s" : Math.floor(at / 60) + ":" + rest.padStart(2, "0");
    };
    strip.tell = (frame) => {
      const counts = Array(slots).fill(0);
      for (const [slot, n] of frame.times) counts[slot] = n;
      const most = Math.max(...counts, 1);
      const [from, to] = strip.chosen || [0, slots - 1];
      bars.forEach((made, slot) => {
        made.style.height = 100 * counts[slot] / most + "%";
        made.classList.toggle("out", slot < from || slot > to);
      });
      const of = frame === root ? "" : " of " + frame.name;
      line.textContent = `${time(from)} to ${time(to + 1)}: ${frame.count} samples${of}${strip.chosen ? "" : "; drag to choose a part"}`;
    };
    strip.choose = (chosen) => {
      strip.chosen = chosen;
      count();
      if (!zoomed.count) zoomed = root;
      layout();
      mark();
    };
    const slotAt = (event) => {
      const { left, width } = box.getBoundingClientRect();
      return Math.min(Math.max(Math.floor((event.clientX - left) / width * slots), 0), slots - 1);
    };
    let anchor = null;
    box.addEventListener("pointerdown", (event) => {
      anchor = slotAt(event);
      box.setPointerCapture(event.pointerId);
      strip.choose([anchor, anchor]);
    });
    box.addEventListener("pointermove", (event) => {
      if (anchor === null) return;
      const at = slotAt(event);
      const chosen = [Math.min(anchor, at), Math.max(anchor, at)];
      if (chosen.join() !== strip.chosen.join()) strip.choose(chosen);
    });
    for (const end of ["pointerup", "pointercancel"]) box.addEventListener(end, () => { anchor = null; });
    box.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      const [from, to] = strip.chosen || (by > 0 ? [-1, -1] : [slots, slots]);
      const start = event.shiftKey && strip.chosen ? from : from + by;
      if (start >= 0 && to + by < slots && to + by >= start) strip.choose([start, to + by]);
      event.preventDefault();
      event.stopPropagation();
    });
    return strip;
  }

  function layout(again) {
    svg.setAttribute("width", "100%");
    width = Math.max(svg.getBoundingClientRect().width, 300);
    if (strip) strip.tell(zoomed);
    let top = 4;
    if (barBox) {
      barBox.setAttribute("width", width);
      barBox.setAttribute("height", 4000);
      top += bar.offsetHeight;
      barBox.setAttribute("height", bar.offsetHeight);
    }
    const end = zoomed.start + zoomed.count;
    const scale = zoomed.count ? (width - 2 * pad) / zoomed.count : 0;
    const callers = new Set();
    for (let at = zoomed.parent; at; at = at.parent) callers.add(at);
    const shown = [];
    let deepest = 0;
    for (const frame of frames) {
      const around = callers.has(frame);
      const inside = frame.level >= zoomed.level && frame.start >= zoomed.start && frame.start + frame.count <= end;
      frame.pixels = around || frame === root ? width - 2 * pad : frame.count * scale;
      frame.x = pad + (around ? 0 : (frame.start - zoomed.start) * scale);
      frame.shown = around || inside && frame.pixels >= 0.1;
      frame.group.classList.toggle("hidden", !frame.shown);
      frame.group.classList.toggle("above", around);
      if (!frame.shown) continue;
      shown.push(frame);
      deepest = Math.max(deepest, frame.level);
    }
    const height = top + (deepest + 1) * row + 10;
    for (const frame of shown) draw(frame, top + (rootOnTop ? frame.level : deepest - frame.level) * row);
    svg.setAttribute("height", height);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    turn.textContent = rootOnTop ? "Root at bottom" : "Root on top";
    if (which) which.textContent = widths === "now" ? "Widths: after" : "Widths: before";
    reset.disabled = isWhole();
    // A scroll bar that comes or goes takes width.
    if (!again && Math.abs(svg.getBoundingClientRect().width - width) >= 1) return layout(true);
    if (current && !current.shown) choose(null);
    else if (current) tell(current);
  }

  function look() {
    (current || zoomed).rect.scrollIntoView({ block: "nearest" });
  }

  function draw(frame, y) {
    const { rect, text, name, x, pixels } = frame;
    frame.y = y;
    rect.setAttribute("x", x);
    rect.setAttribute("y", y);
    rect.setAttribute("width", pixels > gap * 4 ? pixels - gap : pixels);
    rect.setAttribute("height", row - 1);
    const room = Math.floor((pixels - 6) / letter);
    text.textContent = room < 3 ? "" : name.length <= room ? name : name.slice(0, room - 1) + "\u2026";
    text.setAttribute("x", x + 3);
    text.setAttribute("y", y + row / 2 + 4);
  }

  // Beside the pointer, or below the frame.
  function tell(frame, x, y) {
    tip.replaceChildren();
    make("b", tip, frame.name);
    tip.append(frame.numbers);
    const also = (text) => { make("br", tip); tip.append(text); };
    const share = (of) => (100 * Math.min(frame.count / of.count, 1)).toFixed(2) + "%";
    if (strip && strip.chosen && root.count) also(`${frame.count} samples, ${share(root)} of the chosen time`);
    if (zoomed !== root && zoomed.count) also(`${share(zoomed)} of ${zoomed.name}`);
    tipBox.classList.remove("hidden");
    const most = Math.min(width - 16, 480);
    tipBox.setAttribute("width", most);
    tipBox.setAttribute("height", 2000);
    const { offsetWidth, offsetHeight } = tip;
    tipBox.setAttribute("height", offsetHeight);
    const left = x === undefined ? Math.max(frame.x, 0) : x + 14;
    const below = y === undefined ? frame.y + row + 3 : y + 18;
    const over = y === undefined ? frame.y - offsetHeight - 3 : y - offsetHeight - 10;
    const seen = Math.min(innerHeight - svg.getBoundingClientRect().top, +svg.getAttribute("height"));
    tipBox.setAttribute("x", Math.max(Math.min(left, width - offsetWidth - 8), 8));
    tipBox.setAttribute("y", below + offsetHeight > seen && over > 0 ? over : below);
  }

  function choose(frame) {
    if (current) current.group.classList.remove("current");
    current = frame;
    if (!frame) return tipBox.classList.add("hidden");
    frame.group.classList.add("current");
    look();
    tell(frame);
  }

  function zoom(frame) {
    zoomed = frame;
    layout();
    look();
  }

  function other() {
    widths = widths === "now" ? "before" : "now";
    if (!zoomed[widths]) zoomed = root;
    count();
    layout();
    look();
    mark();
  }

  function back() {
    field.value = pattern = "";
    choose(null);
    zoomed = root;
    if (strip) return strip.choose(null);
    layout();
    mark();
  }

  // Capital letters are meant.
  function mark() {
    let regex;
    try {
      regex = pattern && new RegExp(pattern, pattern === pattern.toLowerCase() ? "i" : "");
    } catch (error) {
      matched.textContent = "not a regular expression";
      return;
    }
    let sum = 0, end = 0;
    for (const frame of frames) {
      frame.match = Boolean(regex) && frame.level > 0 && regex.test(frame.name);
      frame.group.classList.toggle("match", frame.match);
      // Frames come in order of their start, parents first: what begins before `end` is counted already.
      if (frame.match && frame.start >= end) {
        sum += frame.count;
        end = frame.start + frame.count;
      }
    }
    matched.textContent = regex ? `${(100 * sum / (root.count || 1)).toFixed(2)}% matched` : "";
    reset.disabled = isWhole();
  }

  function isWhole() {
    return zoomed === root && !pattern && !(strip && strip.chosen);
  }

  // From one frame to the next: to the caller, to the widest call, to neighbours, to the next match.
  function step(key) {
    const from = current || zoomed;
    const visible = (list) => list.filter((frame) => frame.shown && frame.pixels >= 1);
    if (key === (rootOnTop ? "ArrowUp" : "ArrowDown")) return from.parent;
    if (key === "ArrowUp" || key === "ArrowDown") {
      return visible(from.children).sort((a, b) => b.count - a.count)[0];
    }
    const row = visible(frames.filter((frame) => frame.level === from.level));
    return row[row.indexOf(from) + (key === "ArrowLeft" ? -1 : 1)];
  }

  function nextMatch() {
    const found = frames.filter((frame) => frame.match && frame.shown && frame.pixels >= 1);
    return found.find((frame) => current && frame.index > current.index) || found[0];
  }

  const frameOf = (event) => byGroup.get(event.target.closest ? event.target.closest("#frames g") : null);
  let touched = false;
  svg.addEventListener("pointerdown", (event) => { touched = event.pointerType === "touch"; });
  svg.addEventListener("click", (event) => {
    if (bar.contains(event.target)) return;
    const frame = frameOf(event);
    if (!frame) return choose(null);
    // A first touch tells, a second one zooms.
    if (touched && frame !== current) return choose(frame);
    choose(null);
    zoom(frame);
  });
  svg.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch") return;
    const frame = frameOf(event);
    const box = svg.getBoundingClientRect();
    if (frame) tell(frame, event.clientX - box.left, event.clientY - box.top);
    else if (current) tell(current);
    else tipBox.classList.add("hidden");
  });
  svg.addEventListener("pointerleave", () => { if (!current) tipBox.classList.add("hidden"); });
  field.addEventListener("input", () => { pattern = field.value; mark(); });
  addEventListener("keydown", (event) => {
    const { key } = event;
    const typing = event.target === field;
    if (key === "F3" || (event.ctrlKey || event.metaKey) && key.toLowerCase() === "f" || key === "/" && !typing) {
      field.focus();
      field.select();
    } else if (key === "Escape") {
      back();
      field.blur();
    } else if (typing && key === "Enter") {
      const frame = nextMatch();
      if (frame) choose(frame);
    } else if (typing || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("button")) {
      return;
    } else if (key.startsWith("Arrow")) {
      const frame = step(key);
      if (frame) choose(frame);
    } else if (key === "Enter" && current) {
      zoom(current);
    } else if (key === "i") {
      turn.click();
    } else if (key === "b" && which) {
      which.click();
    } else if (key === "n" && nextMatch()) {
      choose(nextMatch());
    } else {
      return;
    }
    event.preventDefault();
  });
  addEventListener("resize", () => layout());
  count();
  layout();
  // What does not fit is to begin with its root.
  if (!rootOnTop && svg.getBoundingClientRect().bottom > innerHeight) {
    rootOnTop = true;
    layout();
  }
});
