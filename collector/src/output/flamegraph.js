"use strict";
addEventListener("load", () => {
  const byId = (id) => document.getElementById(id);
  const svg = document.documentElement;
  const { total, pad, gap, minWidth } = Object.fromEntries(
    Object.entries(svg.dataset).map(([key, value]) => [key, Number(value)]));
  const charWidth = 7.25;
  const frames = [...byId("frames").children].map((group) => {
    const [title, rect, text] = ["title", "rect", "text"].map((tag) => group.querySelector(tag));
    const { s, n, l } = group.dataset;
    const [name, numbers] = title.textContent.split("\n");
    return { group, rect, text, start: +s, count: +n, level: +l, name, numbers };
  });
  const percent = (count) => (100 * count / total).toFixed(2) + "%";
  const byGroup = new Map(frames.map((frame) => [frame.group, frame]));
  let zoomed = frames[0];

  function show(frame, start, count, width) {
    const scale = (width - 2 * pad) / count;
    const from = Math.max(frame.start - start, 0);
    const to = Math.min(frame.start + frame.count - start, count);
    const pixels = (to - from) * scale;
    frame.rect.setAttribute("x", pad + from * scale);
    frame.rect.setAttribute("width", pixels > gap * 4 ? pixels - gap : pixels);
    frame.group.classList.toggle("hidden", pixels < 0.1);
    const room = Math.floor((pixels - 6) / charWidth);
    const fits = frame.name.length <= room;
    frame.text.textContent = room < 3 ? "" : fits ? frame.name : frame.name.slice(0, room - 1) + "\u2026";
    frame.text.setAttribute("x", pad + from * scale + 3);
  }

  function layout() {
    const width = Math.max(innerWidth || 0, minWidth);
    svg.setAttribute("width", width);
    svg.setAttribute("viewBox", `0 0 ${width} ${svg.getAttribute("height")}`);
    for (const element of document.querySelectorAll("[data-right]")) {
      element.setAttribute("x", width - element.dataset.right);
    }
    const end = zoomed.start + zoomed.count;
    for (const frame of frames) {
      const inside = frame.start >= zoomed.start && frame.start + frame.count <= end;
      const around = frame.start <= zoomed.start && frame.start + frame.count >= end;
      const above = around && frame.level < zoomed.level;
      frame.group.classList.toggle("above", above);
      if (above || (inside && frame.level >= zoomed.level)) {
        show(frame, zoomed.start, zoomed.count, width);
      } else {
        frame.group.classList.add("hidden");
      }
    }
    byId("unzoom").classList.toggle("hidden", zoomed === frames[0]);
  }

  function zoom(frame) {
    zoomed = frame;
    layout();
  }

  function search(pattern) {
    let regex;
    try {
      regex = pattern && new RegExp(pattern, pattern === pattern.toLowerCase() ? "i" : "");
    } catch (error) {
      byId("matched").textContent = "not a regular expression: " + pattern;
      return;
    }
    let matched = 0;
    let end = -1;
    for (const frame of frames) {
      const match = Boolean(regex) && frame.level > 0 && regex.test(frame.name);
      frame.group.classList.toggle("match", match);
      // Frames come in order of their start, parents first: what begins before `end` is counted already.
      if (match && frame.start >= end) {
        matched += frame.count;
        end = frame.start + frame.count;
      }
    }
    byId("matched").textContent = regex ? `"${pattern}" matched ${matched} samples, ${percent(matched)}` : "";
    byId("clear").classList.toggle("hidden", !regex);
  }

  function ask() {
    const pattern = prompt("Search functions and processes (regular expression)", "");
    if (pattern !== null) search(pattern);
  }

  const frameOf = (event) => {
    return byGroup.get(event.target.closest ? event.target.closest("#frames g") : null);
  };
  addEventListener("click", (event) => {
    const frame = frameOf(event);
    if (frame) zoom(frame);
  });
  addEventListener("mouseover", (event) => {
    const frame = frameOf(event);
    byId("details").textContent = frame ? frame.name + ": " + frame.numbers : "";
  });
  byId("search").addEventListener("click", ask);
  byId("clear").addEventListener("click", () => search(""));
  byId("unzoom").addEventListener("click", () => zoom(frames[0]));
  addEventListener("keydown", (event) => {
    if (event.key === "F3" || ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "f")) {
      event.preventDefault();
      ask();
    } else if (event.key === "Escape") {
      search("");
      zoom(frames[0]);
    }
  });
  addEventListener("resize", layout);
  layout();
});
