// The grid of `widgets.label` and `widgets.relabel`: selects images by click, drag, shift and keys; Python does the rest.
const STYLE = `
.cnnlab-grid { color: var(--jp-ui-font-color1, CanvasText); font: 13px/1.4 var(--jp-ui-font-family, system-ui, sans-serif); user-select: none; padding: 4px; }
.cnnlab-grid .facts { font-size: 12px; opacity: .8; overflow-wrap: anywhere; min-height: 1.4em; user-select: text; }
.cnnlab-grid .bar { display: flex; flex-wrap: wrap; gap: 4px; align-items: center; margin: 4px 0; }
.cnnlab-grid .say { margin-right: auto; }
.cnnlab-grid button, .cnnlab-grid input, .cnnlab-grid select { font: inherit; color: inherit; padding: 2px 8px; min-height: 28px;
  background: var(--jp-layout-color2, ButtonFace); border: 1px solid var(--jp-border-color1, GrayText); border-radius: 4px; }
.cnnlab-grid button { cursor: pointer; }
.cnnlab-grid input[type=range] { padding: 0; width: 90px; }
.cnnlab-grid kbd { font: 11px var(--jp-code-font-family, monospace); border: 1px solid currentColor; border-radius: 3px; padding: 0 3px; margin-left: 4px; opacity: .75; }
.cnnlab-grid .cards { position: relative; display: grid; gap: 6px; touch-action: pan-y;
  grid-template-columns: repeat(auto-fill, minmax(min(var(--cell), 45%), 1fr)); }
.cnnlab-grid h4 { grid-column: 1 / -1; margin: 6px 0 0; font-size: 13px; }
.cnnlab-grid .card { margin: 0; padding: 3px; border: 2px solid transparent; border-radius: 5px; cursor: pointer; background: var(--jp-layout-color2, rgba(128,128,128,.12)); min-width: 0; }
.cnnlab-grid .card img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; pointer-events: none; }
.cnnlab-grid .card img.tiny { image-rendering: pixelated; }
.cnnlab-grid .card figcaption { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-size: 12px; text-align: center; }
.cnnlab-grid .card[aria-selected=true] { border-color: var(--jp-brand-color1, #1976d2); background: color-mix(in srgb, var(--jp-brand-color1, #1976d2) 30%, transparent); }
.cnnlab-grid .card.done img { opacity: .35; }
.cnnlab-grid .card.done figcaption { font-weight: bold; }
.cnnlab-grid :focus-visible { outline: 3px solid var(--jp-warn-color1, #e65100); outline-offset: 1px; }
.cnnlab-grid .box { position: absolute; border: 1px dashed currentColor; background: rgba(25,118,210,.2); pointer-events: none; }`;
const KEYS = { Enter: "\n", Backspace: "\b" };

function make(kind, fields = {}, children = []) {
  const node = Object.assign(document.createElement(kind), fields);
  node.append(...children);
  return node;
}

function render({ model, el }) {
  const selected = new Set();
  let urls = [], nodes = new Map(), anchor = null;
  const say = make("span", { className: "say" }), choice = make("select", { ariaLabel: "labelled" });
  say.setAttribute("role", "status");
  const actions = make("div", { className: "bar" }), classes = make("div", { className: "bar" });
  const names = make("datalist", { id: "cnnlab-" + Math.random().toString(36).slice(2) });
  const other = make("input", { type: "text", size: 20, placeholder: model.get("other") });
  other.setAttribute("list", names.id);
  other.setAttribute("aria-label", model.get("other"));
  const zoom = make("input", { type: "range", min: 64, max: model.get("size"), value: Math.min(150, model.get("size")), title: "size of the images" });
  zoom.setAttribute("aria-label", zoom.title);
  const facts = make("div", { className: "facts" }), cards = make("div", { className: "cards" });
  cards.setAttribute("role", "listbox");
  cards.setAttribute("aria-multiselectable", "true");
  cards.setAttribute("aria-label", "images");
  const root = make("div", { className: "cnnlab-grid", tabIndex: -1 },
    [make("style", { textContent: STYLE }), make("div", { className: "bar" }, [say, choice, zoom]), actions, classes, facts, cards, names]);
  root.dataset.lmSuppressShortcuts = "true"; // the notebook's own keys would add or delete cells
  el.replaceChildren(root);

  const order = () => model.get("cards").map((card) => card.row);
  const typing = () => document.activeElement?.closest?.("input[type=text], select, textarea, [contenteditable=true]");
  const focus = (row) => (nodes.get(row) ?? root).focus({ preventScroll: nodes.get(row) === undefined });
  // `seen`: what is meant for images that have gone meanwhile must not fall on others
  const send = (message) => {
    model.send({ rows: order().filter((row) => selected.has(row)), seen: order(), ...message });
    select([]);
  };

  function select(rows, on = true, { alone = true } = {}) {
    if (alone) selected.clear();
    for (const row of rows) on ? selected.add(row) : selected.delete(row);
    for (const [row, node] of nodes) node.setAttribute("aria-selected", selected.has(row));
  }
  function move(row) {
    if (model.get("place") === row) return;
    model.set("place", row);
    model.save_changes();
  }
  function between(a, b) {
    const rows = order(), [low, high] = [rows.indexOf(a), rows.indexOf(b)].sort((x, y) => x - y);
    return rows.slice(Math.max(low, 0), high + 1);
  }

  function drawCards() {
    const hadFocus = root.contains(document.activeElement) && !typing();
    urls.forEach(URL.revokeObjectURL);
    urls = []; nodes = new Map();
    const parts = [];
    let group = "";
    for (const card of model.get("cards")) {
      if (card.group && card.group !== group) parts.push(make("h4", { textContent: card.group }));
      group = card.group;
      const url = URL.createObjectURL(new Blob([card.data]));
      urls.push(url);
      const image = make("img", { src: url, alt: card.alt, draggable: false });
      image.onload = () => image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= 64);
      const node = make("figure", { className: "card", title: card.facts }, [image, make("figcaption")]);
      node.dataset.row = card.row;
      node.setAttribute("role", "option");
      node.onfocus = () => move(card.row);
      nodes.set(card.row, node);
      parts.push(node);
    }
    cards.replaceChildren(...parts);
    select(model.get("marked"));
    anchor = null;
    drawAnswers();
    drawPlace();
    if (hadFocus) focus(model.get("place"));
  }
  function drawAnswers() {
    for (const card of model.get("cards")) {
      const answer = model.get("answers")[card.row], node = nodes.get(card.row);
      node?.classList.toggle("done", answer !== undefined);
      if (node) node.lastChild.textContent = answer ?? card.caption;
    }
  }
  function drawPlace() {
    const row = model.get("place");
    facts.textContent = model.get("cards").find((card) => card.row === row)?.facts.replaceAll("\n", " · ") ?? "";
    for (const [other, node] of nodes) node.tabIndex = other === row ? 0 : -1;
    if (cards.contains(document.activeElement)) focus(row);
  }
  function button(words, key, act) {
    const node = make("button", { textContent: words, type: "button", onclick: () => { act(); focus(model.get("place")); } });
    if (key) node.append(make("kbd", { textContent: key }));
    return node;
  }
  function drawButtons() {
    actions.replaceChildren(...model.get("buttons").map(([words, key, sent]) => button(words, key, () => send({ keys: sent }))));
    const known = model.get("classes");
    names.replaceChildren(...known.map(([name]) => make("option", { value: name })));
    classes.replaceChildren(...known.slice(0, 24).map(([name, key]) => button(name, key, () => send({ name }))), other);
    const values = model.get("choices");
    choice.replaceChildren(...values.map(([words, value]) => make("option", { textContent: words, value })));
    choice.value = model.get("choice");
    choice.hidden = values.length < 2;
  }
  const drawStatus = () => { say.textContent = model.get("status"); };
  const resize = () => root.style.setProperty("--cell", zoom.value + "px");

  choice.onchange = () => { model.set("choice", choice.value); model.save_changes(); };
  zoom.oninput = resize;
  other.onkeydown = (event) => {
    event.stopPropagation();
    if (event.key === "Enter" && other.value.trim()) { send({ name: other.value.trim() }); other.value = ""; focus(model.get("place")); }
    if (event.key === "Escape") focus(model.get("place"));
  };

  root.onkeydown = (event) => {
    if (event.key === "Enter" && event.shiftKey) return; // through the notebook, not through the images
    if (event.target.matches("input, select") || (event.target.matches("button") && [" ", "Enter"].includes(event.key))) return;
    const rows = order(), at = rows.indexOf(model.get("place"));
    const across = Math.max(1, getComputedStyle(cards).gridTemplateColumns.split(" ").length);
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across, Home: -at, End: rows.length - 1 - at }[event.key];
    const control = event.ctrlKey || event.metaKey;
    if (step !== undefined) {
      const to = rows[Math.min(rows.length - 1, Math.max(0, at + step))];
      if (event.shiftKey) { anchor ??= rows[at]; select(between(anchor, to)); } else anchor = null;
      move(to); focus(to);
    } else if (control && event.key === "a") select(rows.filter((row) => model.get("answers")[row] === undefined));
    else if (control && event.key === "z") send({ keys: "\b" });
    else if (control || event.altKey || event.key === "Tab") return;
    else if (event.key === "Escape") select([]);
    else if (event.key.length === 1 || KEYS[event.key]) { if (!event.repeat) send({ keys: KEYS[event.key] ?? event.key }); } else return;
    event.preventDefault();
    event.stopPropagation();
  };

  let from = null, box = null;
  const at = (event) => { const edge = cards.getBoundingClientRect(); return [event.clientX - edge.left, event.clientY - edge.top]; };
  cards.onpointerdown = (event) => {
    if (event.button || event.pointerType === "touch") return;
    from = at(event);
    cards.setPointerCapture(event.pointerId);
    event.preventDefault();
  };
  cards.onpointermove = (event) => {
    if (!from) return;
    const [x, y] = at(event);
    if (!box && Math.hypot(x - from[0], y - from[1]) < 6) return;
    if (!box) cards.append(box = make("div", { className: "box" }));
    Object.assign(box.style, { left: Math.min(x, from[0]) + "px", top: Math.min(y, from[1]) + "px",
      width: Math.abs(x - from[0]) + "px", height: Math.abs(y - from[1]) + "px" });
  };
  const release = (event) => {
    if (box) {
      const edge = box.getBoundingClientRect();
      const hit = order().filter((row) => {
        const card = nodes.get(row).getBoundingClientRect();
        return card.left < edge.right && card.right > edge.left && card.top < edge.bottom && card.bottom > edge.top;
      });
      select(hit, !hit.every((row) => selected.has(row)), { alone: false });
      if (hit.length) { move(hit[0]); focus(hit[0]); }
      box.remove();
    } else if (from || event.pointerType === "touch") click(event);
    from = box = null;
  };
  cards.onpointerup = release;
  cards.onpointercancel = () => { box?.remove(); from = box = null; };
  function click(event) {
    const found = document.elementsFromPoint(event.clientX, event.clientY).map((node) => node.closest?.(".card")).find(Boolean);
    if (!found || !cards.contains(found)) return;
    const row = Number(found.dataset.row);
    if (event.shiftKey && anchor !== null) select(between(anchor, row), true, { alone: false });
    else { select([row], !selected.has(row), { alone: false }); anchor = row; }
    move(row); focus(row);
  }
  root.onpointerenter = () => { if (!typing() && !root.contains(document.activeElement)) focus(model.get("place")); };

  const watched = { cards: drawCards, answers: drawAnswers, place: drawPlace, status: drawStatus };
  for (const name of ["classes", "buttons", "choices", "choice"]) watched[name] = drawButtons;
  for (const [name, draw] of Object.entries(watched)) model.on("change:" + name, draw);
  resize(); drawButtons(); drawCards(); drawStatus();
  return () => {
    for (const [name, draw] of Object.entries(watched)) model.off("change:" + name, draw);
    urls.forEach(URL.revokeObjectURL);
  };
}

export default { render };
