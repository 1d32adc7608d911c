// The page: asks POST /v1/chat/completions, shows the answer as it is made, its risks and its maps.
// Texts of the answer and of errors become text nodes only; nothing is stored.
"use strict";

const $ = (id) => document.getElementById(id);
const percent = (value) => (value == null ? "not known" : `${(100 * value).toFixed(1)} %`);
let picture = null; // {url: data URL, bitmap}
let told = null; // the answer on the page: {text, tokens, named, summary}
let running = null; // what ends the request that is under way

// ---- the picture ------------------------------------------------------------------------------

async function take(file) {
  if (!file) return;
  try {
    const url = await new Promise((done, failed) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result);
      reader.onerror = () => failed(reader.error);
      reader.readAsDataURL(file);
    });
    // A browser that cannot draw a format (TIFF) still sends it: the server decides.
    const bitmap = await createImageBitmap(file).catch(() => null);
    picture = { url, bitmap };
  } catch (problem) {
    fail(`${file.name} cannot be read: ${problem.message}`);
    return;
  }
  $("drop").classList.add("full");
  $("hint").textContent = `${file.name} · choose another`;
  forget();
  draw(null);
}

function draw(map) {
  const canvas = $("shown"), bitmap = picture?.bitmap;
  canvas.hidden = !bitmap;
  if (!bitmap) return;
  // Small pictures are drawn larger, so that a map of few patches is smooth to look at.
  const scale = Math.max(1, Math.min(8, 480 / Math.max(bitmap.width, bitmap.height)));
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = scale === 1;
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  if (!map) return;
  const [rows, columns] = map.grid, most = Math.max(...map.values, 1e-12);
  const patches = new ImageData(columns, rows);
  map.values.forEach((value, at) => {
    patches.data.set([255, 70, 0, Math.round(200 * (value / most))], 4 * at);
  });
  const small = document.createElement("canvas");
  [small.width, small.height] = [columns, rows];
  small.getContext("2d").putImageData(patches, 0, 0);
  pen.imageSmoothingEnabled = true;
  pen.drawImage(small, 0, 0, canvas.width, canvas.height);
}

// ---- the answer -------------------------------------------------------------------------------

function forget() {
  told = null;
  $("result").hidden = $("error").hidden = true;
  $("look").hidden = true;
  $("answer").replaceChildren();
  $("facts").replaceChildren();
}

function fail(message) {
  $("result").hidden = $("error").hidden = false;
  $("error").textContent = message;
}

// Tokens that make one word stand together; a word's risk is that of its first token.
function words() {
  const parts = [];
  let start = 0;
  told.tokens.forEach((token, index) => {
    const text = told.text.slice(start, token.end);
    const last = parts.at(-1);
    const goesOn = last && /^[\p{L}\p{N}'’-]/u.test(text) && /[\p{L}\p{N}'’-]$/u.test(last.text);
    if (goesOn) last.text += text;
    else if (text) parts.push({ text, start, token: index, risk: token.risk });
    start = token.end;
  });
  return parts;
}

function show() {
  const threshold = $("threshold").value / 100;
  const nodes = words().flatMap((word) => {
    const [, before, body] = word.text.match(/^(\s*)([^]*)$/);
    if (!body) return [document.createTextNode(word.text)];
    const from = word.start + before.length, to = word.start + word.text.length;
    const named = told.named.find((one) => one.start < to && from < one.end);
    const risk = named ? named.risk : word.risk;
    const node = document.createElement("span");
    node.className = "word";
    node.textContent = body;
    node.tabIndex = 0;
    node.setAttribute("role", "button");
    node.setAttribute("aria-pressed", "false");
    node.title = `risk ${percent(risk)}`;
    node.dataset.token = word.token;
    node.classList.toggle("named", Boolean(named));
    node.classList.toggle("warned", Boolean(named) && risk != null && risk >= threshold);
    // Other words are paler: their risks are of no object.
    node.style.setProperty("--shade", risk == null ? 0 : named ? risk : risk / 3);
    node.setAttribute("aria-label", `${body}, risk ${percent(risk)}${named ? ", named object" : ""}`);
    return [document.createTextNode(before), node];
  });
  $("answer").replaceChildren(...nodes);
}

function facts(summary, finish) {
  const ended = { stop: "at its end", length: "at its longest", content_filter: "before a risky object" };
  const rows = [
    ["Risk of the answer", percent(summary.answer)],
    ["Named objects", told.named.map((one) => `${one.name} ${percent(one.risk)}`).join(", ") || "none"],
    ["Ended", ended[finish] ?? finish],
    ["Policy", summary.policy],
    ["Attention on the picture", percent(summary.mass)],
    ["Tokens steered", percent(summary.steered)],
    ["Version", summary.version || "a folder"],
  ];
  $("facts").replaceChildren(
    ...rows.flatMap(([name, value]) => {
      const term = document.createElement("dt"), detail = document.createElement("dd");
      [term.textContent, detail.textContent] = [name, value];
      return [term, detail];
    }),
  );
}

function look(node) {
  for (const other of $("answer").querySelectorAll(".word")) other.setAttribute("aria-pressed", String(other === node));
  const token = Number(node.dataset.token), summary = told?.summary;
  const values = summary?.maps?.[token]?.[0]?.flat(), grid = summary?.grids?.[0];
  $("look").hidden = false;
  if (!values || !grid) {
    $("look").textContent = running ? "Where it looked is known when the answer is there." : "The answer came without maps.";
    return;
  }
  draw({ values, grid });
  $("look").textContent = `Where the model looked when it said “${node.textContent}”: ${node.title}`;
}

// ---- the request ------------------------------------------------------------------------------

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    left += value;
    const parts = left.split("\n\n");
    left = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("");
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
  }
}

async function refused(answer) {
  const text = await answer.text();
  let message = "";
  try { message = JSON.parse(text).error?.message ?? ""; } catch { message = ""; }
  if (answer.status === 401) $("guarded").hidden = false;
  return `${message || "The server gives no reason"} (${answer.status})`;
}

function heard(chunk) {
  if (chunk.error) throw new Error(chunk.error.message);
  const choice = chunk.choices?.[0];
  if (choice?.delta?.content) told.text += choice.delta.content;
  const risk = chunk.risk;
  if (risk && choice?.finish_reason) {
    told.summary = risk;
    told.tokens = risk.tokens ?? told.tokens;
    told.named = risk.named ?? [];
  } else if (risk?.tokens) told.tokens.push(...risk.tokens);
  if (choice?.finish_reason) told.finish = choice.finish_reason;
  show();
}

async function ask() {
  if (!picture) return fail("Choose a picture first.");
  const content = [
    { type: "image_url", image_url: { url: picture.url } },
    { type: "text", text: $("question").value },
  ];
  const risk = { policy: $("policy").value, threshold: $("threshold").value / 100, maps: true };
  const body = { model: "adapt", stream: true, messages: [{ role: "user", content }], risk };
  const headers = { "Content-Type": "application/json" };
  if ($("key").value) headers.Authorization = `Bearer ${$("key").value}`;
  forget();
  draw(null);
  told = { text: "", tokens: [], named: [], summary: null, finish: "" };
  $("result").hidden = false;
  busy(true);
  try {
    const signal = (running = new AbortController()).signal;
    const answer = await fetch("v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
    if (!answer.ok) throw new Error(await refused(answer));
    for await (const chunk of events(answer.body)) heard(chunk);
    if (!told.summary) throw new Error("The answer broke off.");
    facts(told.summary, told.finish);
    $("state").textContent = "";
  } catch (problem) {
    if (problem.name === "AbortError") $("state").textContent = "Stopped.";
    else fail(problem instanceof TypeError ? "The server does not answer." : problem.message);
  } finally {
    running = null;
    busy(false);
  }
}

function busy(is) {
  $("ask").disabled = is;
  $("stop").hidden = !is;
  $("answer").setAttribute("aria-busy", String(is));
  if (is) $("state").textContent = "Answering ...";
  else if ($("state").textContent.startsWith("Answering")) $("state").textContent = "";
}

// ---- what a person does -----------------------------------------------------------------------

$("file").addEventListener("change", (event) => take(event.target.files[0]));
addEventListener("paste", (event) => take([...event.clipboardData.files].find((file) => file.type.startsWith("image/"))));
for (const kind of ["dragenter", "dragover"])
  addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
addEventListener("dragleave", () => $("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  take(event.dataTransfer.files[0]);
});
$("form").addEventListener("submit", (event) => { event.preventDefault(); if (!running) ask(); });
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); $("form").requestSubmit(); }
});
$("stop").addEventListener("click", () => running?.abort());
$("threshold").addEventListener("input", () => {
  $("percent").textContent = `${$("threshold").value} %`;
  if (told) show();
});
$("answer").addEventListener("click", (event) => { if (event.target.matches(".word")) look(event.target); });
$("answer").addEventListener("keydown", (event) => {
  if (!event.target.matches(".word")) return;
  const all = [...$("answer").querySelectorAll(".word")], at = all.indexOf(event.target);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (to !== undefined && all[to]) { event.preventDefault(); all[to].focus(); look(all[to]); }
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); look(event.target); }
});
$("sample").style.setProperty("--shade", 0.1);
