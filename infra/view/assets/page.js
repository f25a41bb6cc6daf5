"use strict";
(async () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const canvas = $("picture"), brush = canvas.getContext("2d");
  const { nx, ny, window: cut, compares } = data;
  const off = new Set();
  let plane = 0, index, values, ranks, enabled = 0xffffffff, cursor = null, colours;
  let view = { scale: 1, x: 0, y: 0 };

  async function inflate(text) {
    const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const pipe = new DecompressionStream("deflate");
    const stream = new Blob([packed]).stream().pipeThrough(pipe);
    return new Response(stream).arrayBuffer();
  }

  async function show(number) {
    const wanted = Math.min(Math.max(number, 0), data.planes.length - 1);
    const one = data.planes[wanted];
    plane = wanted;
    if (!one.index) {
      const raw = await inflate(one.data);
      const kinds = { 0: Uint8Array, 2: Uint16Array, 4: Uint32Array };  // bytes of an index
      one.index = new kinds[one.wide](raw);
      if (plane !== wanted) return;  // paged on meanwhile
    }
    index = one.index;
    values = one.values;
    $("label").textContent = one.label;
    $("plane").value = plane;
    for (const row of document.querySelectorAll("tr[data-plane]"))
      row.setAttribute("aria-current", String(Number(row.dataset.plane) === plane));
    count();
    rank();
    showPixel();
  }

  const isInside = (x, y) =>
    !cut || (x >= cut.x && x < cut.x + cut.nx && y >= cut.y && y < cut.y + cut.ny);

  // How many pixels of the window have each value; from that every count of the table follows.
  function histogram() {
    const found = new Uint32Array(values.length);
    const [x0, y0, w, h] = cut ? [cut.x, cut.y, cut.nx, cut.ny] : [0, 0, nx, ny];
    for (let y = y0; y < y0 + h; y++)
      for (let i = y * nx + x0, end = i + w; i < end; i++) found[index[i]]++;
    return found;
  }

  const has = (value, bit) => ((value & bit) >>> 0) !== 0;
  const group = (n) => n.toLocaleString("en-US");

  function counts(bit, found) {
    const sums = compares ? [0, 0, 0, 0] : [0, 0];
    values.forEach((value, i) => {
      if (compares) {
        const [a, b] = value.map((v) => has(v, bit));
        if (a) sums[0] += found[i];
        if (b) sums[1] += found[i];
        if (b && !a) sums[2] += found[i];
        if (a && !b) sums[3] += found[i];
      } else if (has(value, bit)) {
        sums[0] += found[i];
        if (value & 1) sums[1] += found[i];
      }
    });
    return sums;
  }

  function count() {
    const found = histogram(), body = $("flags");
    body.replaceChildren();
    for (const [name, bit] of data.flags) {
      const sums = counts(bit, found);
      if (!sums.some(Boolean)) continue;
      const row = body.insertRow(), label = document.createElement("label");
      const box = document.createElement("input"), swatch = document.createElement("span");
      box.type = "checkbox";
      box.checked = !off.has(name);
      box.dataset.flag = name;
      box.addEventListener("change", () => {
        if (box.checked) off.delete(name); else off.add(name);
        rank();
      });
      swatch.className = `swatch ${compares ? "third" : family(bit)}`;
      label.append(box, ...(compares ? [] : [swatch]), name);
      row.insertCell().append(label);
      for (const sum of sums) row.insertCell().textContent = group(sum);
    }
    const whole = cut ? cut.nx * cut.ny : nx * ny;
    const flagged = compares
      ? values.reduce((n, [a, b], i) => n + (a !== b ? found[i] : 0), 0) : whole - found[0];
    const percent = (100 * flagged) / whole;
    const share = percent && percent < 0.01 ? "< 0.01" : percent.toFixed(2);
    const of = data.planes.length > 1 ? `${data.planes[plane].label}: ` : "";
    $("sum").textContent = compares
      ? `${of}${group(flagged)} of ${group(whole)} pixels differ (${share} %).`
      : `${of}${group(flagged)} of ${group(whole)} pixels carry a flag (${share} %).`;
  }

  function family(bit) {
    if (bit === 1) return "first";
    return data.reference.some((other) => other === bit) ? "third" : "second";
  }

  // 0: nothing; 3: what matters most. Where pixels share a dot of the screen, the most counts.
  function rankOf(value) {
    if (compares) {
      const [a, b] = value;
      if (has(b & ~a, enabled)) return 3;
      if (has(a & ~b, enabled)) return 2;
      return has(a, enabled) ? 1 : 0;
    }
    const on = (value & enabled) >>> 0;
    if (!on) return 0;
    if (on & 1) return 3;
    return data.reference.some((bit) => has(on, bit)) ? 1 : 2;
  }

  function rank() {
    enabled = 0;
    for (const [name, bit] of data.flags) if (!off.has(name)) enabled = (enabled | bit) >>> 0;
    const table = Uint8Array.from(values, rankOf);
    ranks = new Uint8Array(index.length);
    for (let i = 0; i < index.length; i++) ranks[i] = table[index[i]];
    const boxes = [...document.querySelectorAll("input[data-flag]")];
    $("all").checked = boxes.every((box) => box.checked);
    $("all").indeterminate = !$("all").checked && boxes.some((box) => box.checked);
    draw();
  }

  function palette() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => {
      const hex = style.getPropertyValue(`--${name}`).trim();
      return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
    };
    const paper = read("paper"), plain = ["good", "third", "second", "first"].map(read);
    const faint = plain.map((c) => c.map((v, i) => Math.round(0.3 * v + 0.7 * paper[i])));
    const word = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
    colours = Uint32Array.from([...plain, ...faint, paper], word);
  }

  function draw() {
    if (!ranks) return;
    const start = performance.now();
    const w = canvas.width, h = canvas.height, s = view.scale;
    const image = brush.createImageData(w, h), out = new Uint32Array(image.data.buffer);
    // Columns and rows of the array that each dot shows: from, to. Row 1 is at the bottom.
    const span = (n, origin, size) => {
      const from = new Int32Array(n), to = new Int32Array(n);
      for (let i = 0; i < n; i++) {
        const a = Math.floor(origin + i / s), b = Math.max(a + 1, Math.floor(origin + (i + 1) / s));
        from[i] = Math.min(Math.max(a, 0), size);
        to[i] = Math.min(Math.max(b, 0), size);
      }
      return [from, to];
    };
    const [left, right] = span(w, view.x, nx), [low, high] = span(h, view.y, ny);
    for (let r = 0; r < h; r++) {
      const y0 = low[h - 1 - r], y1 = high[h - 1 - r], base = r * w;
      if (y0 >= y1) { out.fill(colours[8], base, base + w); continue; }
      if (s >= 1 && r && low[h - r] === y0 && high[h - r] === y1) {
        out.copyWithin(base, base - w, base);
        continue;
      }
      for (let c = 0; c < w; c++) {
        let most = -1;
        for (let y = y0; y < y1; y++)
          for (let i = y * nx + left[c], end = y * nx + right[c]; i < end; i++)
            if (ranks[i] > most) most = ranks[i];
        if (most < 0) out[base + c] = colours[8];
        else out[base + c] = colours[isInside(left[c], y0) ? most : most + 4];
      }
    }
    brush.putImageData(image, 0, 0);
    mark();
    canvas.dataset.milliseconds = (performance.now() - start).toFixed(1);
  }

  function mark() {
    if (!cursor) return;
    const size = Math.max(view.scale, 7), [x, y] = place(cursor.x, cursor.y);
    brush.lineWidth = 2;
    for (const [grow, name] of [[2, "--paper"], [0, "--ink"]]) {
      brush.strokeStyle = getComputedStyle(canvas).getPropertyValue(name);
      const d = size / 2 + grow + 1;
      brush.strokeRect(x - d, y - d, 2 * d, 2 * d);
    }
  }

  const place = (x, y) => [
    (x + 0.5 - view.x) * view.scale, canvas.height - (y + 0.5 - view.y) * view.scale,
  ];

  function pixelAt(event) {
    const box = canvas.getBoundingClientRect(), k = canvas.width / box.width;
    const x = Math.floor(view.x + ((event.clientX - box.left) * k) / view.scale);
    const up = canvas.height - (event.clientY - box.top) * k;
    return { x, y: Math.floor(view.y + up / view.scale) };
  }

  const names = (value) =>
    data.flags.filter(([, bit]) => has(value, bit)).map(([name]) => name).join(", ") || "no flag";

  function showPixel() {
    if (!cursor) return;
    const { x, y } = cursor, value = values[index[y * nx + x]];
    let where = `x ${x + data.x0}, y ${y + data.y0}`;
    if (cut) {
      where = isInside(x, y)
        ? `x ${x - cut.x + 1}, y ${y - cut.y + 1} (${where} in the mask)`
        : `${where} in the mask, outside the window`;
    }
    $("under").textContent = compares
      ? `${where}: before ${value[0]}, ${names(value[0])}; after ${value[1]}, ${names(value[1])}`
      : `${where}: ${value}, ${names(value)}`;
  }

  function point(at) {
    if (at.x < 0 || at.y < 0 || at.x >= nx || at.y >= ny) return;
    cursor = at;
    showPixel();
  }

  function zoom(factor, cx = canvas.width / 2, cy = canvas.height / 2) {
    const scale = Math.min(Math.max(view.scale * factor, 0.05), 64);
    const up = canvas.height - cy;
    view.x += cx / view.scale - cx / scale;
    view.y += up / view.scale - up / scale;
    view.scale = scale;
    draw();
  }

  function centre(scale, x, y) {
    view = { scale, x: x - canvas.width / scale / 2, y: y - canvas.height / scale / 2 };
    draw();
  }

  function fit() {
    const area = cut ? cut : { x: 0, y: 0, nx, ny };
    const scale = Math.min(canvas.width / area.nx, canvas.height / area.ny, 64) * 0.98;
    centre(scale, area.x + area.nx / 2, area.y + area.ny / 2);
  }

  function keepInView() {
    const [x, y] = place(cursor.x, cursor.y);
    if (x < 0 || y < 0 || x > canvas.width || y > canvas.height)
      centre(view.scale, cursor.x, cursor.y);
    else draw();
  }

  function resize() {
    // Dots of the canvas are dots of the screen: a width of half dots would blur every pixel.
    const k = window.devicePixelRatio || 1, borders = 2;
    canvas.style.width = canvas.style.height = "";
    canvas.width = Math.floor((canvas.clientWidth - 1) * k);
    canvas.height = Math.floor((canvas.clientHeight - 1) * k);
    canvas.style.width = `${canvas.width / k + borders}px`;
    canvas.style.height = `${canvas.height / k + borders}px`;
  }

  const actions = {
    fit, in: () => zoom(1.5), out: () => zoom(1 / 1.5),
    one: () => centre(1, cursor ? cursor.x : nx / 2, cursor ? cursor.y : ny / 2),
    next: () => show(plane + 1), previous: () => show(plane - 1),
  };
  const keys = { "+": "in", "=": "in", "-": "out", 0: "fit", 1: "one", n: "next", p: "previous" };
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

  for (const button of document.querySelectorAll("[data-do]"))
    button.addEventListener("click", () => actions[button.dataset.do]());
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = arrows[event.key], action = keys[event.key];
    if (step) {
      const far = event.shiftKey ? 16 : 1;
      const from = cursor || { x: Math.floor(nx / 2), y: Math.floor(ny / 2) };
      const clip = (v, n) => Math.min(Math.max(v, 0), n - 1);
      point({ x: clip(from.x + far * step[0], nx), y: clip(from.y + far * step[1], ny) });
      keepInView();
    } else if (action) actions[action]();
    else return;
    event.preventDefault();
  });

  const fingers = new Map();
  let moved = false;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
    moved = false;
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) { point(pixelAt(event)); return; }
    const k = canvas.width / canvas.clientWidth;
    const spread = () => {
      const [a, b] = [...fingers.values()];
      return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    };
    const apart = fingers.size > 1 ? spread() : 0;
    view.x -= ((event.clientX - before.clientX) * k) / view.scale / fingers.size;
    view.y += ((event.clientY - before.clientY) * k) / view.scale / fingers.size;
    fingers.set(event.pointerId, event);
    moved = true;
    if (apart) zoom(spread() / apart); else draw();
  });
  for (const name of ["pointerup", "pointercancel"])
    canvas.addEventListener(name, (event) => {
      fingers.delete(event.pointerId);
      if (!moved) { point(pixelAt(event)); draw(); }
    });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect(), k = canvas.width / box.width;
    const factor = Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0018));
    zoom(factor, (event.clientX - box.left) * k, (event.clientY - box.top) * k);
  }, { passive: false });
  $("all").addEventListener("change", () => {
    for (const box of document.querySelectorAll("input[data-flag]")) {
      box.checked = $("all").checked;
      if (box.checked) off.delete(box.dataset.flag); else off.add(box.dataset.flag);
    }
    rank();
  });
  $("plane").addEventListener("input", () => show(Number($("plane").value)));
  for (const row of document.querySelectorAll("tr[data-plane]")) {
    const choose = () => show(Number(row.dataset.plane));
    row.addEventListener("click", choose);
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(); });
  }
  let room = 0;
  new ResizeObserver(([entry]) => {  // the window, or the table beside it, has changed
    if (entry.contentRect.width === room) return;
    room = entry.contentRect.width;
    resize();
    draw();
  }).observe(canvas.parentElement);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { palette(); draw(); });

  $("pager").hidden = data.planes.length < 2;
  $("plane").max = data.planes.length - 1;
  palette();
  resize();
  await show(data.start || 0);
  resize();
  fit();
  document.documentElement.dataset.ready = "true";
})();
