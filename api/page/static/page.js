// The page: one picture at a time, its question, and the answers.

import { depthOf, draw } from "./layers.js";
import * as service from "./service.js";
import * as words from "./words.js";

const byId = (id) => document.getElementById(id);
const canvas = byId("canvas");
const LEAST_ASKED = 0.1; // the slider filters above it, without a new request
const MODELS = ["pose_estimator", "threat_detector", "person_reid", "pet_classifier", "depth_estimator"];
const OPTIONS = { pose: { min_confidence: LEAST_ASKED }, threat: { min_confidence: LEAST_ASKED }, depth: { map: true } };

// One question at a time. A new one ends the last, whose answer can then no longer arrive.
let question = null;
let file = null;
let view = null;
let last = null; // {answer, id} of the picture that is shown

const element = (tag, text, attributes = {}) => Object.assign(document.createElement(tag), { textContent: text, ...attributes });
const least = () => Number(byId("confidence").value) / 100;
const confident = (found) => (found ?? []).filter((each) => each.confidence >= least());

// ── asking ──

async function take(chosen) {
  file = chosen;
  view = last = null;
  for (const id of ["picture", "answers", "compare", "whole"]) byId(id).hidden = true;
  byId("reveal").value = 0;
  byId("under").textContent = "";
  for (const button of document.querySelectorAll("[data-copy]")) button.textContent = "copy";
  drag = cursor = null;
  await ask({});
}

async function ask(fields) {
  question?.stop.abort();
  const own = question = { stop: new AbortController() };
  const { signal } = own.stop;
  busy(true);
  try {
    const fresh = view ?? (await freshView(file, signal));
    if (question !== own) return; // a picture can't be stopped while it is decoded
    view = fresh;
    const found = await service.enrich(file, asked(fields), signal);
    if (question !== own) return;
    const depth = found.answer.results.depth_estimator?.depth_map_base64;
    const map = depth ? await depthOf(depth) : null;
    if (question !== own) return;
    last = found;
    Object.assign(view, { depth: map, chosen: [], said: null, asked: found.answer.boxes[0]?.bbox ?? null });
    show(fields);
  } catch (error) {
    if (question === own) restore();
    if (question === own && error.name !== "AbortError") fail(error);
  } finally {
    if (question === own) busy(false);
  }
}

function asked(fields) {
  const on = fields.bbox && { on: "boxes" }; // otherwise these two would look at the whole picture again
  const options = { ...OPTIONS, pose: { ...OPTIONS.pose, ...on }, threat: { ...OPTIONS.threat, ...on } };
  return { models: MODELS, options, ...fields };
}

// Draws the answers that are there, without the box of a question that has none.
function restore() {
  if (last) draw(canvas, view);
}

async function freshView(chosen, signal) {
  let picture, byServer = false;
  try {
    picture = await createImageBitmap(chosen);
  } catch {
    picture = await createImageBitmap(await service.shown(chosen, signal));
    byServer = true;
  }
  return { picture, byServer, depth: null, chosen: [], asked: null };
}

function busy(yes) {
  byId("progress").hidden = !yes;
  byId("again").disabled = yes || !file;
  for (const sample of document.querySelectorAll("[data-sample]")) sample.disabled = yes;
  document.body.setAttribute("aria-busy", String(yes));
  clearInterval(busy.timer);
  if (!yes) return;
  byId("error").hidden = true;
  const began = performance.now();
  const tell = () => { byId("elapsed").textContent = `${Math.round((performance.now() - began) / 1000)} s`; };
  tell();
  busy.timer = setInterval(tell, 1000);
}

function fail(error) {
  const place = byId("error");
  place.replaceChildren(element("strong", "No answer. "), error.message);
  if (error.requestId) place.append(element("span", ` Request ${error.requestId}.`));
  if (!(error instanceof service.Failure)) console.error(error);
  place.hidden = false;
}

// ── showing ──

function show(fields) {
  const { width, height } = last.answer.image;
  Object.assign(canvas, { width, height });
  byId("picture").hidden = byId("answers").hidden = false;
  byId("whole").hidden = !fields.bbox;
  byId("compare").hidden = true;
  byId("reveal").disabled = !view.depth;
  byId("json").textContent = JSON.stringify(last.answer, shortened, 2);
  byId("curl").textContent = curl(fields);
  redraw();
  times();
}

const shortened = (key, value) => (key === "depth_map_base64" ? `${value.length} characters` : value);

function curl(fields) {
  const name = (file.name || "photo.jpg").replace(/["\\]/g, "\\$&"); // curl reads ; and , in a name without quotes
  const form = [`image=@"${name}"`, ...Object.entries(asked(fields)).map(([option, value]) => `${option}=${JSON.stringify(value)}`)];
  const sent = form.map((field) => ` -F '${field.replaceAll("'", "'\\''")}'`).join("");
  const key = service.hasKey() ? ' -H "X-API-Key: $KEY"' : "";
  return `curl${key}${sent} ${new URL("enrich", location.href)}`;
}

function redraw() {
  const { results, boxes } = last.answer, { pose_estimator, threat_detector } = { ...results, ...boxes[0]?.results };
  view.people = confident(pose_estimator?.persons);
  view.threats = confident(threat_detector?.threats_detected);
  const kept = view.chosen.filter((each) => view.people.includes(each));
  if (kept.length < view.chosen.length) {
    view.chosen = kept;
    byId("compare").hidden = true;
  }
  view.reveal = Number(byId("reveal").value) / 100;
  view.layers = new Set([...document.querySelectorAll("[data-layer]:checked")].map((each) => each.dataset.layer));
  draw(canvas, view);
  const said = JSON.stringify([view.people.length, view.threats.length, view.chosen.map((each) => view.people.indexOf(each))]);
  if (said !== view.said) verdicts(); // its list is read aloud anew, and loses the keyboard's place
  view.said = said;
}

function verdicts() {
  const { results, errors, untrained = [] } = last.answer, list = byId("verdicts");
  const said = {
    pose_estimator: people,
    threat_detector: weapons,
    person_reid: (answer) => [element("p", words.reid(answer))],
    pet_classifier: (answer) => [element("p", words.pet(answer), { className: answer.is_household_pet ? "good" : "" })],
    depth_estimator: (answer) => [element("p", words.scene(answer))],
  };
  list.replaceChildren();
  for (const name of MODELS) {
    if (results[name]) add(list, name, said[name](results[name]), untrained);
    if (errors[name]) add(list, name, [wrong(errors[name])], []);
  }
  for (const box of last.answer.boxes) {
    for (const [name, answer] of Object.entries(box.results)) {
      const text = name === "depth_estimator" ? [element("p", words.boxDepth(answer))] : said[name](answer);
      add(list, name, text, untrained, " in the box");
    }
    for (const [name, error] of Object.entries(box.errors)) add(list, name, [wrong(error)], [], " in the box");
  }
  if (view.byServer) list.append(element("dt", "Picture"), element("dd", "This browser can't show the picture's format, so the service converted it to JPEG."));
}

function add(list, name, content, untrained, where = "") {
  const dd = element("dd", "");
  dd.append(...content);
  if (untrained.includes(name)) dd.append(element("p", "Untrained: a stand-in with random weights answered.", { className: "warn" }));
  list.append(element("dt", words.modelName(name) + where), dd);
}

const wrong = (error) => element("p", `Failed: ${error.message} (${error.code}).`, { className: "bad" });

function weapons(answer) {
  const hidden = answer.threats_detected.length - view.threats.length;
  return [element("p", words.threats(view.threats, hidden), { className: view.threats.length || hidden ? "bad" : "" })];
}

function people(answer) {
  if (!view.people.length) return [element("p", words.nobody(answer.persons.length))];
  const list = element("ul", "");
  view.people.forEach((each, index) => {
    const item = element("li", `${words.person(each, index + 1)} `, { className: each.alerts.length ? "warn" : "" });
    const pressed = view.chosen.includes(each);
    const button = element("button", "compare", { type: "button", onclick: () => { choose(each); focusOn(index); } });
    button.setAttribute("aria-pressed", String(pressed));
    button.setAttribute("aria-label", `Choose person ${index + 1} for a comparison`);
    if (view.people.length > 1) item.append(button);
    for (const reason of words.reasons(each)) item.append(element("div", reason, { className: "hint" }));
    list.append(item);
  });
  return [list];
}

const focusOn = (index) => byId("verdicts").querySelectorAll("button")[index]?.focus();

function times() {
  const { timings } = last.answer;
  const rows = [["step", "queue", "forward"], ["read and decode", "", timings.read_ms + timings.decode_ms], ["prepare", "", timings.prepare_ms]];
  for (const [name, spent] of Object.entries(timings.models)) rows.push([words.modelName(name), spent.queue_ms, spent.forward_ms]);
  const total = last.answer.inference_time_ms;
  rows.push(["all, without decoding", "", total]);
  const caption = byId("timings").caption;
  byId("timings").replaceChildren(caption, ...rows.map(row));
}

function row(cells, index) {
  const tr = element("tr", "");
  cells.forEach((cell, column) => {
    const head = index === 0 || column === 0;
    const td = element(head ? "th" : "td", typeof cell === "number" ? `${cell.toFixed(0)} ms` : cell);
    if (head) td.scope = index === 0 ? "col" : "row";
    if (column) td.className = "number";
    tr.append(td);
  });
  return tr;
}

// ── two people ──

async function choose(person) {
  view.chosen = view.chosen.includes(person) ? view.chosen.filter((each) => each !== person) : [...view.chosen, person].slice(-2);
  byId("compare").hidden = byId("error").hidden = true;
  redraw();
  if (view.chosen.length < 2) return;
  const own = last, pair = view.chosen;
  try {
    const { answer } = await service.enrich(file, { models: ["person_reid"], boxes: pair.map((each) => ({ bbox: each.bbox })) });
    const [first, second] = answer.boxes.map((box) => box.results.person_reid);
    if (!first || !second) throw new service.Failure("Re-identification did not answer for these two people.");
    const found = await service.compare(embedded(first), embedded(second));
    if (last !== own || view.chosen !== pair) return;
    byId("similarity").textContent = words.similarity(found);
    const { min, max } = Object.assign(byId("meter"), { low: found.threshold, high: found.threshold, optimum: 1, value: found.cosine });
    byId("threshold").style.left = `${((found.threshold - min) / (max - min)) * 100}%`;
    byId("compare").hidden = false;
  } catch (error) {
    if (last === own) fail(error);
  }
}

const embedded = (answer) => ({ embedding: answer.embedding, model_id: answer.model_id });

// ── the pointer on the picture ──

let drag = null; // the first corner of a box
let cursor = null; // where the keyboard is on the picture
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function at(event) {
  const place = canvas.getBoundingClientRect();
  const x = ((event.clientX - place.left) / place.width) * canvas.width;
  const y = ((event.clientY - place.top) / place.height) * canvas.height;
  return inside(x, y);
}

const inside = (x, y) => ({ x: Math.max(0, Math.min(canvas.width - 1, x)), y: Math.max(0, Math.min(canvas.height - 1, y)) });

function spanned(from, to) {
  return { x: Math.min(from.x, to.x), y: Math.min(from.y, to.y), width: Math.abs(to.x - from.x), height: Math.abs(to.y - from.y) };
}

canvas.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button !== 0) return;
  drag = at(event);
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (last) hover(at(event));
});
canvas.addEventListener("pointerup", (event) => {
  if (!event.isPrimary) return;
  const area = drag && spanned(drag, at(event));
  drag = null;
  if (!area || !last) return;
  const clicked = 8 * (canvas.width / canvas.clientWidth); // 8 pixels of the screen
  if (area.width >= clicked && area.height >= clicked) {
    askAbout(area);
    return;
  }
  draw(canvas, view);
  const hit = view.people.findLast(({ bbox: { x, y, width, height } }) => area.x >= x && area.x <= x + width && area.y >= y && area.y <= y + height);
  if (hit && view.people.length > 1) choose(hit);
});

function hover(point) {
  const depth = view.depth ? `, depth ${view.depth.at(point.x, point.y).toFixed(2)} (1 is nearest)` : "";
  byId("under").textContent = `x ${Math.round(point.x)}, y ${Math.round(point.y)}${depth}`;
  if (drag) draw(canvas, { ...view, asked: spanned(drag, point) });
}

const askAbout = (area) => ask({ bbox: [area.x, area.y, area.x + area.width, area.y + area.height].map(Math.round) });

// Arrows move a cursor, Enter marks two corners, Escape ends it.
canvas.addEventListener("keydown", (event) => {
  if (!last) return;
  const unit = Math.max(canvas.width, canvas.height) / 50;
  if (event.key in ARROWS) {
    const step = event.shiftKey ? unit / 5 : unit, [right, down] = ARROWS[event.key];
    const { x, y } = cursor ?? { x: canvas.width / 2, y: canvas.height / 2 };
    cursor = inside(x + right * step, y + down * step);
    hover(cursor);
    if (!drag) draw(canvas, { ...view, asked: { x: cursor.x - unit / 2, y: cursor.y - unit / 2, width: unit, height: unit } });
  } else if (event.key === "Enter" && cursor) {
    const area = drag && spanned(drag, cursor);
    drag = area ? null : cursor;
    if (area?.width && area.height) askAbout(area);
  } else if (event.key === "Escape") {
    drag = cursor = null;
    restore();
  } else {
    return;
  }
  event.preventDefault();
});
canvas.addEventListener("focus", () => byId("under").setAttribute("aria-live", "polite"));
canvas.addEventListener("blur", () => byId("under").setAttribute("aria-live", "off"));
canvas.addEventListener("pointercancel", () => {
  drag = null;
  restore();
});

// ── the other controls ──

for (const id of ["file", "camera"]) {
  byId(id).addEventListener("change", (event) => {
    const [chosen] = event.target.files;
    event.target.value = ""; // the same file may be chosen again
    if (chosen) take(chosen);
  });
}
for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", async () => {
    try {
      take(new File([await service.sample(button.dataset.sample)], button.dataset.sample, { type: "image/jpeg" }));
    } catch (error) {
      fail(error);
    }
  });
}
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const text = button.dataset.copy === "json" ? JSON.stringify(last.answer, null, 2) : byId(button.dataset.copy).textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(byId(button.dataset.copy)); // without HTTPS a page may not write the clipboard
      button.textContent = "selected: press Ctrl+C";
    }
  });
}
byId("again").addEventListener("click", () => ask({}));
byId("whole").addEventListener("click", () => ask({}));
byId("stop").addEventListener("click", () => { question?.stop.abort(); question = null; busy(false); restore(); });
byId("reveal").addEventListener("input", redraw);
byId("confidence").addEventListener("input", () => { byId("least").textContent = `${byId("confidence").value} %`; if (last) redraw(); });
for (const layer of document.querySelectorAll("[data-layer]")) layer.addEventListener("change", redraw);
byId("download").addEventListener("click", () => canvas.toBlob((blob) => {
  const link = element("a", "", { href: URL.createObjectURL(blob), download: "enriched.png" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}));

const drop = byId("drop");
for (const name of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
}
addEventListener("resize", restore);
addEventListener("paste", (event) => {
  const [pasted] = event.clipboardData.files;
  if (pasted) take(pasted);
});

// ── the service's state ──

const STATES = { ready: "good", loading: "warn", building_engine: "warn", failed: "bad" };
let release = "";

async function refresh() {
  const health = await service.health();
  const locked = Boolean(health) && !health.models;
  byId("unlock").hidden = !locked;
  if (health && !locked && !release) release = await service.version().then((found) => `Version ${found},`, () => "");
  const line = byId("service");
  if (locked) {
    line.textContent = `The service is ${health.status} and asks for an API key.`;
    line.className = "warn";
  } else if (!health) {
    line.textContent = "The service can't be reached.";
    line.className = "bad";
  } else {
    line.textContent = `${release} ${health.status}, up for ${Math.round(health.uptime_seconds / 60)} min`;
    line.className = health.status === "healthy" ? "good" : "warn";
    states(health);
  }
  return locked;
}

async function watch() {
  await refresh();
  setTimeout(watch, 4000);
}

byId("unlock").addEventListener("submit", async (event) => {
  event.preventDefault();
  service.useKey(byId("key").value);
  byId("key").value = "";
  byId("error").hidden = true;
  byId("unlock-help").textContent = (await refresh()) ? "This is not one of the service's keys." : "";
});

function states(health) {
  const rows = Object.entries(health.models).filter(([, model]) => typeof model === "object").map(([name, model]) => {
    const tr = element("tr", "");
    const detail = model.detail ? `${model.state.replaceAll("_", " ")}: ${model.detail}` : model.state.replaceAll("_", " ");
    const engine = [model.engine, model.precision].filter(Boolean).join(" ");
    const head = element("th", words.modelName(name), { scope: "row" });
    tr.append(head, element("td", detail, { className: STATES[model.state] ?? "" }), element("td", engine));
    tr.append(element("td", model.memory_mb === null ? "" : `${model.memory_mb} MB`, { className: "number" }));
    return tr;
  });
  byId("states").replaceChildren(...rows);
  const devices = [...new Set(health.runners.map((runner) => runner.device?.name).filter(Boolean))];
  byId("device").textContent = devices.length ? `Computed on ${devices.join(", ")}.` : "";
}

watch();
