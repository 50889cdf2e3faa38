// Asks with Node's own clients: `node ask.mjs URL FILE WAY` prints the answer's body.
import { createReadStream, openAsBlob, readFileSync } from "node:fs";
import { request } from "node:http";
import { Readable } from "node:stream";

const [url, file, way] = process.argv.slice(2);
const image_base64 = readFileSync(file).toString("base64");
const bbox = [0, 0, 30, 48];

async function post(body, headers = {}, query = "", more = {}) {
  const answer = await fetch(url + query, { method: "POST", body, headers, ...more });
  return await answer.text();
}

function piped() {
  return new Promise((resolve, reject) => {
    const asked = request(`${url}?bbox=${bbox}`, { method: "POST", headers: { "Content-Type": "image/png" } }, (answer) => {
      let text = "";
      answer.on("data", (chunk) => (text += chunk)).on("end", () => resolve(text));
    });
    asked.on("error", reject);
    createReadStream(file).pipe(asked);
  });
}

async function form() {
  const body = new FormData();
  body.append("image", await openAsBlob(file), "camera.png");
  body.append("bbox", bbox);
  return await post(body);
}

const ways = {
  json: () => post(JSON.stringify({ image_base64, bbox }), { "Content-Type": "application/json" }),
  form,
  urlencoded: () => post(new URLSearchParams({ image_base64, bbox })),
  blob: async () => post(await openAsBlob(file, { type: "image/png" }), {}, `?bbox=${bbox}`),
  bytes: () => post(readFileSync(file), {}, `?bbox=${bbox}`),
  stream: () => post(Readable.toWeb(createReadStream(file)), {}, `?bbox=${bbox}`, { duplex: "half" }),
  "http.request, piped": piped,
};
console.log(await ways[way]());
