// The camera of `widgets.capture`: sends one frame at a time to the kernel, and shows what comes back.

const STYLE = `
.cnnlab-capture { display: flex; flex-wrap: wrap; gap: 12px 20px; padding: 8px; outline: none; font-size: 14px;
  color: var(--jp-ui-font-color1, inherit); font-family: var(--jp-ui-font-family, sans-serif) }
.cnnlab-capture .view { position: relative; flex: 1 1 300px; max-width: 480px }
.cnnlab-capture video { width: 100%; aspect-ratio: 4 / 3; background: #222; border-radius: 6px; transform: scaleX(-1);
  display: block; object-fit: cover }
.cnnlab-capture .answer { position: absolute; left: 8px; top: 8px; padding: 2px 10px; border-radius: 4px;
  background: rgba(0, 0, 0, .7); color: #fff; font-size: 20px; max-width: calc(100% - 16px); overflow-wrap: anywhere }
.cnnlab-capture .answer:empty { display: none }
.cnnlab-capture .rows { flex: 1 1 280px; max-width: 520px; min-width: 0 }
.cnnlab-capture button { font: inherit; padding: 8px 12px; border-radius: 6px; cursor: pointer; color: inherit;
  border: 1px solid var(--jp-border-color1, #999); background: var(--jp-layout-color2, #eee) }
.cnnlab-capture button:disabled { opacity: .5; cursor: default }
.cnnlab-capture button:focus-visible, .cnnlab-capture:focus-visible { outline: 2px solid #56B4E9 }
.cnnlab-capture .hold { touch-action: none; user-select: none; -webkit-user-select: none; width: 100%;
  display: flex; justify-content: space-between; gap: 8px; text-align: left; overflow-wrap: anywhere }
.cnnlab-capture .hold.on { background: #D55E00; border-color: #D55E00; color: #fff }
.cnnlab-capture .bar { display: flex; align-items: center; gap: 8px; margin: 3px 0 10px; height: 16px }
.cnnlab-capture .bar span:first-child { flex: 1; height: 8px; border-radius: 4px; overflow: hidden;
  background: var(--jp-layout-color3, #ddd) }
.cnnlab-capture .bar i { display: block; height: 100%; width: 0; background: #0072B2 }
.cnnlab-capture .bar span:last-child { width: 3.5em; text-align: right; font-variant-numeric: tabular-nums }
.cnnlab-capture small { color: var(--jp-ui-font-color2, inherit); white-space: nowrap }
.cnnlab-capture .hold.on small { color: #fff }
.cnnlab-capture p { margin: 6px 0; line-height: 1.35; overflow-wrap: anywhere }
.cnnlab-capture .problem { color: #D55E00; font-weight: 600 }
.cnnlab-capture .problem:empty, .cnnlab-capture p:empty { display: none }`;

const REFUSED = {
  NotAllowedError: "The browser does not give this page the camera. Allow it, at the left end of the address bar, and press Start again.",
  NotFoundError: "There is no camera on this computer. Put images into one folder per class, and use tables.from_folder.",
  NotReadableError: "The camera is in use by another program. Close that, and press Start again.",
};
const PAUSE = 80; // milliseconds from one frame to the next, at least: neighbours are alike
const LONGER = 640; // pixels

function make(tag, parent, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  parent.append(element);
  return element;
}

function render({ model, el }) {
  make("style", el, "", STYLE);
  const root = make("div", el, "cnnlab-capture");
  root.tabIndex = 0;
  root.dataset.lmSuppressShortcuts = "true"; // keys are meant for these buttons, not for the notebook
  const view = make("div", root, "view");
  const video = make("video", view);
  Object.assign(video, { muted: true, playsInline: true });
  const answer = make("div", view, "answer");
  const speed = make("p", view);
  const rows = make("div", root, "rows");
  const start = make("button", rows, "start", "Start the camera");
  const problem = make("p", rows, "problem");
  problem.setAttribute("role", "alert");
  const words = make("p", rows);
  const classes = model.get("classes").map((name, place) => {
    const button = make("button", rows, "hold");
    make("span", button, "", `Hold to record: ${name}${place < 9 ? `  [${place + 1}]` : ""}`);
    const bar = make("div", rows, "bar");
    const filled = make("i", make("span", bar));
    return { name, button, count: make("small", button), bar, filled, share: make("span", bar) };
  });
  make("p", rows, "", `Frames go from this browser to the notebook's kernel, into ${model.get("place")}, and nowhere else.`);

  const canvas = document.createElement("canvas");
  let stream = null;
  let closed = false;
  let held = null; // the number of the class that is being recorded
  let waiting = null; // called with the kernel's answer to the frame that is on its way

  function showCounts() {
    model.get("counts").forEach(([frames, recordings], place) => {
      classes[place].count.textContent = `${frames} frames, ${recordings} recording${recordings === 1 ? "" : "s"}`;
    });
    words.textContent = model.get("words");
    for (const { button } of classes) button.disabled = !stream;
  }

  function release() {
    if (held === null) return;
    classes[held].button.classList.remove("on");
    held = null;
    model.send({ end: true });
  }

  function hold(place) {
    if (held !== null || !stream || place >= classes.length) return;
    held = place;
    classes[place].button.classList.add("on");
    problem.textContent = "";
    model.send({ begin: place });
  }

  classes.forEach(({ button }, place) => {
    button.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      button.setPointerCapture(event.pointerId);
      hold(place);
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(end, release);
    button.addEventListener("contextmenu", (event) => event.preventDefault()); // of a long touch
  });
  root.addEventListener("keydown", (event) => {
    const pressed = classes.findIndex(({ button }) => button === event.target);
    const place = [" ", "Enter"].includes(event.key) ? pressed : "123456789".indexOf(event.key);
    if (place < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (!event.repeat) hold(place);
  });
  root.addEventListener("keyup", release);
  root.addEventListener("focusout", (event) => { if (!root.contains(event.relatedTarget)) release(); });
  window.addEventListener("blur", release);

  function showAnswer({ answer: shares, frames, milliseconds }, began) {
    const best = Object.keys(shares).reduce((most, name) => (shares[name] > (shares[most] ?? -1) ? name : most), "");
    answer.textContent = best && `${best} ${Math.round(100 * shares[best])} %`;
    for (const { name, filled, share } of classes) {
      filled.style.width = `${100 * (shares[name] ?? 0)}%`;
      share.textContent = name in shares ? `${(100 * shares[name]).toFixed(1)} %` : "";
    }
    const whole = performance.now() - began;
    if (best) speed.textContent = `Answered in ${Math.round(whole)} ms, ${Math.round(milliseconds)} of them in the kernel.`;
    if (held !== null) classes[held].count.textContent = `recording: ${frames} frames`;
  }

  async function look() {
    const began = performance.now();
    const scale = Math.min(1, LONGER / Math.max(video.videoWidth, video.videoHeight));
    canvas.width = Math.round(scale * video.videoWidth);
    canvas.height = Math.round(scale * video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
    const bytes = await blob.arrayBuffer();
    const late = setTimeout(() => { problem.textContent = "The kernel is busy or gone: no answer for 10 seconds."; }, 10000);
    const reply = await new Promise((done) => { waiting = done; model.send({ frame: true }, undefined, [bytes]); });
    clearTimeout(late);
    if (problem.textContent.startsWith("The kernel")) problem.textContent = "";
    if (reply) showAnswer(reply, began);
    await new Promise((done) => setTimeout(done, Math.max(0, PAUSE - (performance.now() - began))));
  }

  async function run(mine) {
    while (stream === mine) {
      if (video.videoWidth && (held !== null || model.get("learned"))) await look();
      else await new Promise((done) => setTimeout(done, 50));
    }
  }

  function stop() {
    release();
    if (stream) stream.getTracks().forEach((track) => track.stop());
    stream = video.srcObject = null;
    if (waiting) waiting(null);
    answer.textContent = speed.textContent = "";
    start.textContent = "Start the camera";
    showCounts();
  }

  start.addEventListener("click", async () => {
    problem.textContent = "";
    if (stream) return stop();
    if (!navigator.mediaDevices) {
      problem.textContent = "Browsers give the camera to pages of this computer (http://localhost) or over https only.";
      return;
    }
    start.disabled = true; // a second request would leave a camera that nobody can stop
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, height: { ideal: 480 } } });
      if (closed) return stop();
      video.srcObject = stream;
      await video.play();
    } catch (error) {
      stop();
      problem.textContent = REFUSED[error.name] ?? `The camera cannot be used: ${error.message}`;
      return;
    } finally {
      start.disabled = false;
    }
    const mine = stream;
    mine.getVideoTracks()[0].addEventListener("ended", () => {
      if (stream === mine) { stop(); problem.textContent = "The camera is gone. Plug it in, and press Start again."; }
    });
    start.textContent = "Stop the camera";
    showCounts();
    run(mine);
  });

  function receive(message) {
    if (message.problem) {
      release();
      problem.textContent = message.problem;
    }
    if (waiting) waiting(message.answer ? message : null);
    waiting = null;
  }
  model.on("msg:custom", receive);
  model.on("change:counts change:words", showCounts);
  showCounts();
  return () => {
    closed = true;
    stop();
    window.removeEventListener("blur", release);
    model.off("msg:custom", receive);
    model.off("change:counts change:words", showCounts);
  };
}

export default { render };
