// Says in words what the models found.

const NAMES = {
  pose_estimator: "People", threat_detector: "Weapons", person_reid: "Re-identification",
  pet_classifier: "Pet", depth_estimator: "Distance",
};

export const modelName = (name) => NAMES[name] ?? name;
export const percent = (value) => `${Math.round(value * 100)} %`;
const plain = (name) => name.replaceAll("_", " ");

export function person(each, number) {
  const alerts = each.alerts.length ? `; alert: ${each.alerts.map(plain).join(", ")}` : "";
  const posture = each.posture === "unknown" ? "posture can't be judged" : plain(each.posture);
  return `${number}: ${posture} (${percent(each.confidence)})${alerts}`;
}

export function reasons(each) {
  const alerts = (each.alert_details ?? []).map((detail) => `${plain(detail.alert)}: ${detail.reason}`);
  return each.posture === "unknown" && each.posture_reason ? [...alerts, each.posture_reason] : alerts;
}

function hidden(count, one, many) {
  return `${count === 1 ? `One ${one} is` : `${count} ${many} are`} less certain than the slider asks for.`;
}

// unsure: how many more there are below the slider's confidence.
export function threats(found, unsure) {
  if (!found.length && !unsure) return "No weapon was found. The detector misses many, so one may still be there.";
  const named = found.map((each) => `${each.class} (${each.severity}, ${percent(each.confidence)})`);
  return [named.join("; "), unsure ? hidden(unsure, "weapon", "weapons") : ""].filter(Boolean).join(". ");
}

export function nobody(unsure) {
  return unsure ? hidden(unsure, "person", "people") : "Nobody was found.";
}

export function pet(answer) {
  if (answer.is_household_pet) return `A household pet: ${answer.pet_type} (${percent(answer.confidence)}).`;
  if (answer.person_in_view) return `No pet: a person is in view. Without one, the guess would be ${answer.pet_type}.`;
  return `No certain pet. The best guess is ${answer.pet_type} (${percent(answer.confidence)}).`;
}

export function reid(answer) {
  return `An embedding of ${answer.embedding_dim} numbers, to find this person again.`;
}

export function scene(answer) {
  return `Relative depth, mean ${answer.mean_depth.toFixed(2)} (1 is nearest). Move the slider to see it.`;
}

export function boxDepth(answer) {
  return `${answer.nearness} (median ${answer.median.toFixed(2)}, 1 is nearest in this scene)`;
}

export function similarity(found) {
  const verdict = found.same_person ? "probably the same person" : "probably two people";
  return `Cosine ${found.cosine.toFixed(2)}: ${verdict}. The threshold is ${found.threshold.toFixed(2)}.`;
}
