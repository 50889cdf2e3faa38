// Talks to the service. Every failure becomes a Failure with a sentence, and the request's id if there is one.

export class Failure extends Error {
  constructor(message, requestId = null) {
    super(message);
    this.requestId = requestId;
  }
}

// The API key stays in this tab: it is forgotten when the tab is closed.
const KEY = "api-key";
export const useKey = (key) => sessionStorage.setItem(KEY, key);
export const hasKey = () => sessionStorage.getItem(KEY) !== null;
const keyed = (options) => (hasKey() ? { ...options, headers: { ...options.headers, "X-API-Key": sessionStorage.getItem(KEY) } } : options);

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, keyed(options));
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The service can't be reached. It may be restarting, or the network is down.");
  }
  if (response.ok) return response;
  const id = response.headers.get("x-request-id");
  let said = `The service answered ${response.status}.`;
  try {
    const { error } = await response.json();
    said = sentence(response.status, error, response.headers.get("retry-after"));
  } catch { /* the body is not ours: a proxy's, perhaps */ }
  throw new Failure(said, id);
}

function sentence(status, error, retryAfter) {
  const later = retryAfter ? ` Try again in ${retryAfter} s.` : "";
  if (status === 401) return "The service asks for an API key.";
  if (status === 429) return `The service has too much to do.${later}`;
  if (status >= 500) return `${error.message} (${error.code}).${later}`;
  return `This picture can't be used: ${error.message}.`;
}

function form(file, fields) {
  const body = new FormData();
  body.append("image", file);
  for (const [name, value] of Object.entries(fields)) body.append(name, JSON.stringify(value));
  return body;
}

export async function enrich(file, fields, signal) {
  const response = await call("enrich", { method: "POST", body: form(file, fields), signal });
  return { answer: await response.json(), id: response.headers.get("x-request-id") };
}

// The upright picture, for formats that a browser can't show. No detection has a confidence of 1, so nothing is drawn on it.
export async function shown(file, signal) {
  const overlay = (route) => call(`${route}?render=overlay&min_confidence=1`, {
    method: "POST", body: form(file, {}), signal, headers: { Accept: "image/jpeg" },
  });
  try {
    return await (await overlay("threat-detect")).blob();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return (await overlay("pose-analyze")).blob(); // this model may serve if the other one can't
  }
}

export async function sample(name) {
  return (await call(`static/samples/${name}`)).blob();
}

export async function compare(first, second) {
  const response = await call("person-reid/compare", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ first, second }),
  });
  return response.json();
}

// /health answers 503 with the same body if no model can serve, and the status alone without the API key.
export async function health() {
  try {
    const response = await fetch("health", keyed({ signal: AbortSignal.timeout(4000) }));
    return await response.json();
  } catch {
    return null;
  }
}

export async function version() {
  const response = await call("openapi.json");
  return (await response.json()).info.version;
}
