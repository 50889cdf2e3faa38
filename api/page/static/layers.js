// Draws a picture and the answers as layers on a canvas. Coordinates are pixels of the upright picture.

const LIMBS = [
  ["left_shoulder", "right_shoulder"], ["left_hip", "right_hip"], ["left_shoulder", "left_hip"],
  ["right_shoulder", "right_hip"], ["left_shoulder", "left_elbow"], ["left_elbow", "left_wrist"],
  ["right_shoulder", "right_elbow"], ["right_elbow", "right_wrist"], ["left_hip", "left_knee"],
  ["left_knee", "left_ankle"], ["right_hip", "right_knee"], ["right_knee", "right_ankle"],
  ["nose", "left_eye"], ["nose", "right_eye"], ["left_eye", "left_ear"], ["right_eye", "right_ear"],
];
const PERSON = "#4cc2ff", ALERT = "#ff9f0a", CHOSEN = "#30d158", ASKED = "#ffffff";
const SEVERITY = { critical: "#ff453a", high: "#ff9f0a", medium: "#ffd60a" };
// Viridis at equal steps (matplotlib, CC0): it reads in grey and by colour-blind people, too.
const VIRIDIS = [
  [68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99],
  [170, 220, 50], [253, 231, 37],
];

function colour(value) {
  const at = (value / 255) * (VIRIDIS.length - 1), below = Math.min(Math.floor(at), VIRIDIS.length - 2);
  return VIRIDIS[below].map((part, index) => part + (VIRIDIS[below + 1][index] - part) * (at - below));
}

const COLOURS = Uint8ClampedArray.from(Array.from({ length: 256 }, (_, value) => colour(value)).flat());

// A depth map: `image` to draw, and `at(x, y)` from 0 to 1.
export async function depthOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at += 1) bytes[at] = text.charCodeAt(at);
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height), context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const { data } = pixels, grey = new Uint8Array(data.length / 4); // plain loops: 20 times as fast as callbacks
  for (let at = 0; at < grey.length; at += 1) {
    const value = grey[at] = data[at * 4];
    for (let part = 0; part < 3; part += 1) data[at * 4 + part] = COLOURS[value * 3 + part];
  }
  context.putImageData(pixels, 0, 0);
  return { image: canvas, at: (x, y) => grey[Math.floor(y) * canvas.width + Math.floor(x)] / 255 };
}

// view: {picture, people, threats, depth, reveal (0…1), layers (a set of names), chosen (people), asked (a box)}
export function draw(canvas, view) {
  const context = canvas.getContext("2d"), { width, height } = canvas;
  context.drawImage(view.picture, 0, 0, width, height);
  if (view.depth && view.reveal > 0) {
    const edge = Math.round(width * view.reveal);
    context.save();
    context.beginPath();
    context.rect(0, 0, edge, height);
    context.clip();
    context.drawImage(view.depth.image, 0, 0, width, height);
    context.restore();
    context.fillStyle = ASKED;
    context.fillRect(edge - 1, 0, 2, height);
  }
  const unit = width / (canvas.clientWidth || width), labels = []; // a pixel of the screen
  view.people.forEach((each, index) => {
    const tint = view.chosen.includes(each) ? CHOSEN : each.alerts.length ? ALERT : PERSON;
    if (view.layers.has("people")) box(context, each.bbox, tint, unit);
    if (view.layers.has("limbs")) limbs(context, each.keypoints, tint, unit);
    if (view.layers.has("people")) labels.push([each.bbox, `${index + 1} ${each.posture.replaceAll("_", " ")}`, tint]);
  });
  if (view.layers.has("threats")) {
    for (const each of view.threats) {
      box(context, each.bbox, SEVERITY[each.severity], unit * 1.5);
      labels.push([each.bbox, `${each.class} ${Math.round(each.confidence * 100)} %`, SEVERITY[each.severity]]);
    }
  }
  if (view.asked) box(context, view.asked, ASKED, unit, [6 * unit, 4 * unit]);
  if (view.layers.has("labels")) place(context, labels, unit);
}

function box(context, { x, y, width, height }, tint, unit, dash = []) {
  context.setLineDash(dash);
  for (const [line, style] of [[4 * unit, "#000000a0"], [2 * unit, tint]]) {
    context.lineWidth = line;
    context.strokeStyle = style;
    context.strokeRect(x, y, width, height);
  }
  context.setLineDash([]);
}

function limbs(context, keypoints, tint, unit) {
  const points = new Map(keypoints.map((point) => [point.name, point]));
  context.lineCap = "round";
  for (const [line, style] of [[4.5 * unit, "#000000a0"], [2.5 * unit, tint]]) {
    context.lineWidth = line;
    context.strokeStyle = style;
    context.beginPath();
    for (const [one, two] of LIMBS) {
      const from = points.get(one), to = points.get(two);
      if (!from || !to) continue;
      context.moveTo(from.x, from.y);
      context.lineTo(to.x, to.y);
    }
    context.stroke();
  }
  context.fillStyle = "#ffffff";
  for (const { x, y } of keypoints) context.fillRect(x - unit, y - unit, 2 * unit, 2 * unit);
}

// Each label stands above its box, else below, else further down: never on another label, never outside.
function place(context, labels, unit) {
  const size = 13 * unit, pad = size * 0.3, tall = size + 2 * pad, taken = [];
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = "top";
  for (const [around, text, tint] of labels) {
    const wide = context.measureText(text).width + 2 * pad;
    const left = Math.max(0, Math.min(around.x, context.canvas.width - wide));
    const tops = [around.y - tall, around.y + around.height, around.y];
    for (let step = 1; step < 40; step += 1) tops.push(around.y + step * tall, around.y - (step + 1) * tall);
    const top = tops.find((each) => each >= 0 && each + tall <= context.canvas.height
      && !taken.some((other) => left < other.right && left + wide > other.left && each < other.bottom
        && each + tall > other.top));
    if (top === undefined) continue;
    taken.push({ left, right: left + wide, top, bottom: top + tall });
    context.fillStyle = "#000000d0";
    context.fillRect(left, top, wide, tall);
    context.fillStyle = tint;
    context.fillRect(left, top, pad / 2, tall);
    context.fillStyle = "#ffffff";
    context.fillText(text, left + pad, top + pad);
  }
}
