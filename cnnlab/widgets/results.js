// `widgets.confusion` and `widgets.embedding`: cells or dots to choose, and the images behind them below.

const STYLE = `
.cnnlab-results { font: 14px var(--jp-ui-font-family, sans-serif); color: var(--jp-ui-font-color1, inherit); padding: 8px }
.cnnlab-results .scroll { overflow: auto; max-height: 560px }
.cnnlab-results table { border-collapse: collapse; color: inherit; font: inherit }
.cnnlab-results th { font-weight: normal; padding: 3px 6px; text-align: right; max-width: 14em; overflow-wrap: anywhere }
.cnnlab-results thead th { vertical-align: bottom; text-align: center }
.cnnlab-results thead th span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 12em }
.cnnlab-results td { padding: 1px }
.cnnlab-results td button { width: 46px; height: 34px; border: 1px solid var(--jp-border-color2, #ccc); border-radius: 3px;
  font: inherit; color: inherit; cursor: pointer }
.cnnlab-results td button:disabled { cursor: default; color: var(--jp-ui-font-color3, #999) }
.cnnlab-results td button.on { outline: 3px solid #E69F00 }
.cnnlab-results td button.right { border: 2px solid #009E73 }
.cnnlab-results p { margin: 8px 0 }
.cnnlab-results select, .cnnlab-results .more { font: inherit; padding: 4px 10px; color: inherit; margin-left: 8px;
  background: var(--jp-layout-color2, #eee); border: 1px solid var(--jp-border-color1, #999); border-radius: 4px }
.cnnlab-results .images { display: flex; flex-wrap: wrap; gap: 8px; max-height: 620px; overflow: auto }
.cnnlab-results figure { margin: 0; width: 120px; font-size: 12px; text-align: center; overflow-wrap: anywhere }
.cnnlab-results figure img { width: 120px; height: 120px; object-fit: contain; background: var(--jp-layout-color2, #eee);
  image-rendering: auto }
.cnnlab-results .map { position: relative; max-width: 900px }
.cnnlab-results canvas { width: 100%; height: 460px; touch-action: none; cursor: crosshair; display: block;
  border: 1px solid var(--jp-border-color2, #ccc); border-radius: 4px }
.cnnlab-results .tip { position: absolute; pointer-events: none; padding: 4px; border-radius: 4px; display: none;
  background: var(--jp-layout-color1, #fff); border: 1px solid var(--jp-border-color1, #999); z-index: 2 }
.cnnlab-results .key { display: inline-block; margin-right: 14px; white-space: nowrap }
.cnnlab-results .key i { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 5px }`;

function make(tag, parent, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  parent.append(element);
  return element;
}

function figure(parent, bytes, caption, title) {
  const box = make("figure", parent);
  box.title = title;
  const image = make("img", box);
  image.alt = title;
  image.src = URL.createObjectURL(new Blob([bytes]));
  image.onload = image.onerror = () => URL.revokeObjectURL(image.src);
  make("figcaption", box, "", caption);
}

function render({ model, el }) {
  make("style", el, "", STYLE);
  const root = make("div", el, "cnnlab-results");
  root.dataset.lmSuppressShortcuts = "true"; // keys are meant for these buttons, not for the notebook
  const facts = model.get("facts");
  const top = make("div", root);
  const words = make("p", root);
  words.setAttribute("role", "status");
  const images = make("div", root, "images");
  const more = make("button", root, "more", "more images");
  more.hidden = true;
  more.addEventListener("click", () => model.send({ start: images.childElementCount }));
  const view = facts.view === "confusion" ? matrix(top, words, facts, model) : map(top, words, facts, model);

  function receive(message, buffers) {
    const { kind, captions, titles, start, count } = message;
    if (kind === "hover") return view.hover(message, buffers[0]);
    if (start === 0) images.replaceChildren();
    if (start !== images.childElementCount) return; // an answer to a click before the last one
    buffers.forEach((bytes, place) => figure(images, bytes, captions[place], titles[place]));
    more.hidden = images.childElementCount >= count;
    view.told(count);
  }
  model.on("msg:custom", receive);
  return () => { model.off("msg:custom", receive); view.close(); };
}

function matrix(parent, words, { names, cells }, model) {
  const totals = cells.map((row) => row.reduce((sum, one) => sum + one, 0));
  const table = make("table", make("div", parent, "scroll"));
  const head = make("tr", make("thead", table));
  make("th", head, "", "label ↓   predicted →");
  for (const name of names) make("span", make("th", head), "", name);
  const order = document.createElement("select");
  for (const text of ["surest first", "least sure first"]) make("option", order, "", text);
  let chosen = null;

  function ask() {
    if (chosen) model.send({ select: [...chosen.place, order.selectedIndex === 1] });
  }
  order.addEventListener("change", ask);
  const body = make("tbody", table);
  cells.forEach((row, label) => {
    const line = make("tr", body);
    make("th", line, "", `${names[label]} (${totals[label]})`);
    row.forEach((count, predicted) => {
      const button = make("button", make("td", line), label === predicted ? "right" : "", count || "·");
      const share = totals[label] ? count / totals[label] : 0;
      button.style.background = `rgba(0, 114, 178, ${count ? 0.1 + 0.75 * Math.sqrt(share) : 0})`;
      if (share > 0.3) button.style.color = "#fff";
      button.disabled = !count;
      button.title = `${count} of ${totals[label]} images of ${names[label]}: predicted ${names[predicted]}`;
      button.setAttribute("aria-label", button.title);
      button.addEventListener("click", () => {
        if (chosen) chosen.button.classList.remove("on");
        button.classList.add("on");
        chosen = { button, place: [label, predicted] };
        ask();
      });
    });
  });
  words.textContent = "Click at a number to see its images.";
  return {
    told(count) {
      if (!chosen) return; // it was asked in another view of the same matrix
      const [label, predicted] = chosen.place;
      words.textContent = `${names[label]}, predicted ${names[predicted]}: ${count} image${count === 1 ? "" : "s"}`;
      words.append(order);
    },
    hover() {},
    close() {},
  };
}

function map(parent, words, { x, y, codes, names, colors }, model) {
  const box = make("div", parent, "map");
  const canvas = make("canvas", box);
  const tip = make("div", box, "tip");
  const legend = make("p", parent);
  names.forEach((name, code) => {
    const key = make("span", legend, "key");
    make("i", key).style.background = colors[code];
    key.append(name);
  });
  const pen = canvas.getContext("2d");
  let line = [];
  let drawing = false;
  let inside = new Set();
  let near = -1;
  const edge = 16;
  const across = (row) => edge + x[row] * (canvas.clientWidth - 2 * edge);
  const down = (row) => edge + (1 - y[row]) * (canvas.clientHeight - 2 * edge);

  function draw() {
    const scale = window.devicePixelRatio || 1;
    canvas.width = scale * canvas.clientWidth;
    canvas.height = scale * canvas.clientHeight;
    pen.scale(scale, scale);
    for (let row = 0; row < x.length; row++) {
      pen.globalAlpha = !inside.size || inside.has(row) ? 0.9 : 0.25;
      pen.fillStyle = colors[codes[row]] ?? "#7F7F7F";
      pen.beginPath();
      pen.arc(across(row), down(row), row === near ? 7 : 4, 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
    if (!line.length) return;
    pen.strokeStyle = "#E69F00";
    pen.lineWidth = 2;
    pen.beginPath();
    line.forEach(([left, above], place) => (place ? pen.lineTo(left, above) : pen.moveTo(left, above)));
    pen.closePath();
    pen.stroke();
  }

  function within(left, above) {
    let odd = false;
    line.forEach(([ax, ay], place) => {
      const [bx, by] = line[(place + 1) % line.length];
      if (ay > above !== by > above && left < ((bx - ax) * (above - ay)) / (by - ay) + ax) odd = !odd;
    });
    return odd;
  }

  function nearest(left, above) {
    let best = -1;
    let least = 100; // ten pixels, squared
    for (let row = 0; row < x.length; row++) {
      const away = (across(row) - left) ** 2 + (down(row) - above) ** 2;
      if (away < least) [best, least] = [row, away];
    }
    return best;
  }

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    [drawing, line] = [true, [[event.offsetX, event.offsetY]]];
    tip.style.display = "none";
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drawing) {
      line.push([event.offsetX, event.offsetY]);
      draw();
      return;
    }
    const row = nearest(event.offsetX, event.offsetY);
    if (row === near) return;
    near = row;
    tip.style.display = "none";
    draw();
    if (row >= 0) model.send({ hover: row });
  });
  canvas.addEventListener("pointerleave", () => { tip.style.display = "none"; near = -1; draw(); });
  canvas.addEventListener("pointerup", () => {
    drawing = false;
    const rows = x.map((_, row) => row).filter((row) => line.length > 2 && within(across(row), down(row)));
    inside = new Set(rows);
    draw();
    model.send({ select: rows });
  });
  const watch = new ResizeObserver(() => { line = []; draw(); });
  watch.observe(canvas);
  words.textContent = "Draw around dots to select them; hover over one to see it.";
  return {
    told(count) {
      words.textContent = `${count} of ${x.length} images selected.${count ? " In Python: view.selected" : ""}`;
    },
    hover({ hover, captions, titles }, bytes) {
      if (hover !== near) return;
      tip.replaceChildren();
      figure(tip, bytes, captions[0], titles[0]);
      tip.style.display = "block";
      tip.style.left = `${Math.min(across(hover) + 12, canvas.clientWidth - 136)}px`;
      tip.style.top = `${Math.max(0, down(hover) < 180 ? down(hover) + 12 : down(hover) - 170)}px`;
    },
    close() { watch.disconnect(); },
  };
}

export default { render };
