"use strict";
// Fields and their bytes light up together.
for (const table of document.querySelectorAll(".block")) {
  const light = (event, on) => {
    const key = event.target.closest("[data-field]")?.dataset.field;
    if (!key) return;
    for (const each of table.querySelectorAll("[data-field]")) {
      if (each.dataset.field === key) each.classList.toggle("lit", on);
    }
  };
  for (const name of ["mouseover", "focusin"]) table.addEventListener(name, (event) => light(event, true));
  // one stop of the Tab key for all fields, the arrow keys go from one to the next
  table.addEventListener("keydown", (event) => {
    const row = event.target.closest("tr[data-field]");
    const next = { ArrowDown: row?.nextElementSibling, ArrowUp: row?.previousElementSibling }[event.key];
    if (!next?.dataset.field) return;
    event.preventDefault();
    row.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  for (const name of ["mouseout", "focusout"]) table.addEventListener(name, (event) => light(event, false));
}

// A walk is shown entry by entry.
for (const stepper of document.querySelectorAll(".stepper")) {
  const steps = [...stepper.querySelectorAll(".step")];
  const tools = stepper.querySelector(".tools");
  const told = tools.querySelector("output");
  let at = -1;
  tools.hidden = false;
  tools.addEventListener("click", (event) => {
    const what = event.target.dataset.do;
    if (!what) return;
    if (what === "every") at = -1;
    else at = Math.max(0, Math.min(steps.length - 1, at + (what === "next" ? 1 : -1)));
    steps.forEach((step, number) => { step.hidden = at >= 0 && number !== at; });
    told.textContent = at < 0 ? `${steps.length} entries`
      : `Entry ${at + 1} of ${steps.length}: ${steps[at].querySelector("strong").textContent}`;
  });
}

// Address maps: numbers are in pages of 4 KiB, which are exact where bytes would not be.
const hex = (pages) => (pages ? `0x${pages.toString(16)}000` : "0x0");
const size = (pages) => {
  for (const [unit, of] of [[2 ** 28, "TiB"], [2 ** 18, "GiB"], [2 ** 8, "MiB"]]) {
    if (pages >= unit) return `${Number((pages / unit).toFixed(2))} ${of}`;
  }
  return `${pages * 4} KiB`;
};

const unpacked = (text) => {
  const ranges = [];
  let end = 0;
  for (const word of text.split(" ")) {
    const [hole, length, physical, rights] = word.split(".");
    const start = end + parseInt(hole, 36);
    end = start + parseInt(length, 36);
    ranges.push({ start, end, physical: parseInt(physical, 36), rights });
  }
  return ranges;
};

// The first range that ends behind an address.
const firstBehind = (ranges, address) => {
  let low = 0, high = ranges.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ranges[middle].end > address) high = middle;
    else low = middle + 1;
  }
  return low;
};

const colours = () => {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(`--${name}`).trim();
};

class AddressMap {
  constructor(box) {
    this.box = box;
    this.ranges = unpacked(JSON.parse(document.getElementById(box.dataset.packed).textContent));
    this.most = Math.max(2 ** (Number(box.dataset.width) - 12), this.ranges.at(-1).end);
    const [first, last] = [this.ranges[0], this.ranges.at(-1)];
    const margin = Math.ceil((last.end - first.start) / 32);
    this.used = [Math.max(0, first.start - margin), Math.min(this.most, last.end + margin)];
    this.view = this.used;
    this.canvas = box.querySelector("canvas");
    this.told = box.querySelector("output");
    this.tools = box.querySelector(".tools");
    for (const each of box.querySelectorAll(".tools")) each.hidden = false;
    box.classList.add("drawn");
    this.tools.addEventListener("click", (event) => this.act(event.target.dataset.do));
    this.canvas.addEventListener("keydown", (event) => {
      const what = { "+": "in", "=": "in", "-": "out", ArrowLeft: "left", ArrowRight: "right", Home: "all", End: "used" }[event.key];
      if (!what) return;
      event.preventDefault();
      this.act(what);
    });
    this.canvas.addEventListener("pointerdown", (event) => {
      this.from = this.at(event);
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointerup", (event) => {
      const ends = [this.from, this.at(event)].sort((a, b) => a - b);
      if (ends[1] - ends[0] > (this.view[1] - this.view[0]) / 50) this.show(Math.floor(ends[0]), Math.ceil(ends[1]));
    });
    this.canvas.addEventListener("pointermove", (event) => this.tell(this.at(event)));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return this.view[0] + (event.clientX - box.left) / box.width * (this.view[1] - this.view[0]);
  }

  act(what) {
    const [from, to] = this.view, wide = to - from, middle = (from + to) / 2;
    if (what === "all") this.show(0, this.most);
    if (what === "used") this.show(...this.used);
    if (what === "in") this.show(Math.floor(middle - wide / 8), Math.ceil(middle + wide / 8));
    if (what === "out") this.show(Math.floor(middle - wide * 2), Math.ceil(middle + wide * 2));
    if (what === "left") this.show(from - Math.ceil(wide / 4), to - Math.ceil(wide / 4));
    if (what === "right") this.show(from + Math.ceil(wide / 4), to + Math.ceil(wide / 4));
  }

  show(from, to) {
    const wide = Math.min(this.most, Math.max(16, to - from));
    const start = Math.max(0, Math.min(this.most - wide, from));
    this.view = [start, start + wide];
    this.draw();
  }

  tell(address) {
    const range = this.ranges[firstBehind(this.ranges, address)];
    if (!range || range.start > address) return;
    this.told.textContent = `${hex(range.start)}-${hex(range.end)} to ${hex(range.physical)} ${range.rights}`;
  }

  draw() {
    const scale = window.devicePixelRatio || 1;
    const wide = this.canvas.clientWidth, high = this.canvas.clientHeight;
    if (!wide) return;
    this.canvas.width = wide * scale;
    this.canvas.height = high * scale;
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    const colour = colours();
    const [from, to] = this.view;
    const first = firstBehind(this.ranges, from);
    let last = first, low = Infinity, highest = 0, pages = 0;
    for (; last < this.ranges.length && this.ranges[last].start < to; last++) {
      const range = this.ranges[last];
      low = Math.min(low, range.physical);
      highest = Math.max(highest, range.physical + range.end - range.start);
      pages += Math.min(range.end, to) - Math.max(range.start, from);
    }
    pen.fillStyle = colour("plain");
    pen.fillRect(0, 0, wide, high);
    pen.font = "12px ui-monospace, monospace";
    pen.fillStyle = colour("quiet");
    pen.fillText(hex(from), 4, high - 5);
    pen.textAlign = "right";
    pen.fillText(hex(to), wide - 4, high - 5);
    pen.textAlign = "left";
    const top = 18, bottom = high - 34, strip = high - 28;
    if (last > first) {
      pen.fillText(`physical ${hex(low)} (below) to ${hex(highest)} (above)`, 4, 13);
      const x = (address) => (address - from) / (to - from) * wide;
      const y = (physical) => bottom - (physical - low) / Math.max(1, highest - low) * (bottom - top);
      const inks = { rw: colour("note"), "r-": colour("good"), "-w": colour("bad") };
      // many ranges fall on the same two pixels, which are drawn once
      const drawn = new Set();
      let reached = -1;
      pen.lineWidth = 2;
      for (let number = first; number < last; number++) {
        const range = this.ranges[number];
        const left = Math.max(0, x(range.start)), right = Math.min(wide, x(range.end));
        const height = y(range.physical);
        if (right > reached) {
          reached = Math.max(left, reached) + 1;
          pen.fillStyle = inks[range.rights] ?? colour("quiet");
          pen.fillRect(left, strip, Math.max(1.5, right - left), 10);
        }
        const place = (left >> 1) << 12 | height >> 1;
        if (right - left < 3) {
          if (drawn.has(place)) continue;
          drawn.add(place);
          pen.fillStyle = inks[range.rights] ?? colour("quiet");
          pen.fillRect(left, height - 1, 2, 2);
          continue;
        }
        pen.strokeStyle = inks[range.rights] ?? colour("quiet");
        pen.beginPath();
        pen.moveTo(left, height);
        pen.lineTo(right, y(range.physical + range.end - range.start));
        pen.stroke();
      }
    }
    this.told.textContent = `${hex(from)} to ${hex(to)}: ${last - first} range${last - first === 1 ? "" : "s"}, ${size(pages)} mapped`;
  }
}

const PIECE = 200;

// The ranges of a cluster, some at a time.
const list = (map, row, button) => {
  const pages = (text) => Number(BigInt(text) >> 12n);
  const [from, to] = [pages(row.dataset.start), pages(row.dataset.end)];
  map.show(from, to);
  let next = firstBehind(map.ranges, from);
  const cell = document.createElement("td");
  cell.colSpan = 6;
  const detail = document.createElement("tr");
  detail.append(cell);
  const table = document.createElement("table");
  table.innerHTML = "<caption>Ranges</caption><thead><tr><th scope=col>IOVA</th><th scope=col>Physical</th><th scope=col>Size</th><th scope=col>Rights</th></tr></thead><tbody></tbody>";
  const more = document.createElement("button");
  more.type = "button";
  more.textContent = "More";
  const fill = () => {
    for (let count = 0; count < PIECE && next < map.ranges.length && map.ranges[next].start < to; count++, next++) {
      const range = map.ranges[next], line = document.createElement("tr");
      for (const text of [`${hex(range.start)}-${hex(range.end)}`, hex(range.physical), size(range.end - range.start), range.rights]) {
        const each = document.createElement("td");
        each.textContent = text;
        line.append(each);
      }
      table.tBodies[0].append(line);
    }
    more.hidden = next >= map.ranges.length || map.ranges[next].start >= to;
  };
  more.addEventListener("click", fill);
  cell.append(table, more);
  row.after(detail);
  fill();
  button.textContent = "Hide the ranges";
  button.setAttribute("aria-expanded", "true");
};

for (const box of document.querySelectorAll("[data-map]")) {
  const map = new AddressMap(box);
  const clusters = box.parentElement.querySelector(".clusters");
  for (const button of clusters.querySelectorAll("[data-do=show]")) {
    button.hidden = false;
    button.setAttribute("aria-expanded", "false");
  }
  clusters.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do=show]"), row = button?.closest("tr");
    if (!button) return;
    if (button.getAttribute("aria-expanded") === "true") {
      row.nextElementSibling.remove();
      button.textContent = "Show the ranges";
      button.setAttribute("aria-expanded", "false");
    } else {
      list(map, row, button);
    }
  });
}

// Paper has no buttons: everything is open on it.
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details")) each.open = true;
  for (const each of document.querySelectorAll(".step")) each.hidden = false;
});
