// Shows view.json, again every two seconds. Everything it was given becomes text, never
// markup: names in it were chosen by the workload. Where the daemon has an admin token it
// is asked for, kept in this variable only, and sent with every question.
"use strict";

let token = "";
let pendingShown = ""; // what the proposals were drawn from

const every = 2000;
const svg = "http://www.w3.org/2000/svg";
const at = (id) => document.getElementById(id);

function make(tag, className, ...children) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  e.append(...children.map((c) => (typeof c === "object" ? c : String(c))));
  return e;
}

function draw(tag, attributes, ...children) {
  const e = document.createElementNS(svg, tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  e.append(...children);
  return e;
}

const number = (n) => n.toLocaleString("en", { maximumFractionDigits: 0 });
const rate = (n) => n.toLocaleString("en", { maximumFractionDigits: n < 10 ? 1 : 0 });
const clock = (t) => new Date(t).toLocaleTimeString("en", { hour12: false });
const place = (r) => (r.host === "" ? "–" : (r.host.includes(":") ? "[" + r.host + "]" : r.host) + ":" + r.port);

function bytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let i = 0;
  for (; n >= 1000 && i < units.length - 1; i++) n /= 1000;
  return (i > 0 && n < 10 ? n.toFixed(1) : Math.round(n)) + " " + units[i];
}

// ceiling is the next number of the form 1, 2 or 5 times a power of ten.
function ceiling(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((f) => f * power).find((c) => c >= n * 0.999);
}

// chart draws one or two rows of counts as bars on top of each other.
function chart(into, series, names) {
  const [left, right, top, bottom, width, height] = [38, 6, 8, 20, 560, 150];
  const n = series.allowed.length; // the last one is not over, and grows
  const sums = Array.from({ length: n }, (_, i) => names.reduce((s, name) => s + series[name][i], 0) / series.step_seconds);
  const most = Math.max(...sums);
  const high = most > 0 ? ceiling(most) : 1;
  const x = (i) => left + (i / n) * (width - left - right);
  const y = (v) => height - bottom - (v / high) * (height - top - bottom);
  const picture = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `at most ${rate(most)} a second` });
  for (const part of [0, 0.5, 1]) {
    picture.append(draw("line", { x1: left, x2: width - right, y1: y(part * high), y2: y(part * high) }));
    picture.append(draw("text", { x: left - 5, y: y(part * high) + 4, "text-anchor": "end" }, +(part * high).toPrecision(2)));
  }
  for (const minutes of [60, 45, 30, 15, 0]) {
    const anchor = { 60: "start", 0: "end" }[minutes] || "middle";
    picture.append(draw("text", { x: x(n * (1 - minutes / 60)), y: height - 5, "text-anchor": anchor }, minutes ? minutes + " min" : "now"));
  }
  const end = new Date(series.end).getTime();
  for (let i = 0; i < n; i++) {
    let below = 0;
    for (const name of names) {
      const value = series[name][i] / series.step_seconds;
      if (value === 0) continue;
      const tall = Math.max(y(below) - y(below + value), 1.5); // what happened once is seen
      const bar = draw("rect", { class: name, x: x(i).toFixed(2), y: (y(below) - tall).toFixed(2), width: (x(1) - x(0)).toFixed(2), height: tall.toFixed(2) });
      bar.append(draw("title", {}, `${clock(end - (n - i) * series.step_seconds * 1000)} ${name}: ${series[name][i]} in ${series.step_seconds} s`));
      picture.append(bar);
      below += value;
    }
  }
  at(into).replaceChildren(picture);
  at("key-" + into).replaceChildren(...names.map((name) => make("span", name, name)));
}

// table writes rows of cells; a column's kind is the class of its cells.
function table(id, columns, rows) {
  const head = make("tr", "", ...columns.map(([title, kind]) => make("th", kind, title)));
  const body = rows.map((row) => make("tr", "", ...row.map((cell, i) => make("td", columns[i][1], cell))));
  at(id).replaceChildren(make("thead", "", head), make("tbody", "", ...body));
}

function chips(v) {
  const out = [make("span", v.ready ? "chip good" : "chip bad", v.ready ? "ready" : "not ready")];
  if (v.learning) out.push(make("span", "chip bad", "learning: public destinations are allowed"));
  out.push(make("span", v.policy.quarantine ? "chip bad" : "chip", "policy generation " + v.policy.generation + (v.policy.quarantine ? ", quarantine" : "")));
  if (v.peer) {
    out.push(make("span", v.peer.attached ? "chip good" : "chip bad", v.peer.attached ? "process daemon attached" : "no process daemon"));
    if (v.peer.attached) out.push(make("span", "chip", "workload " + v.peer.workload));
  } else {
    out.push(make("span", "chip", "alone, without a process daemon"));
  }
  if (v.dropped > 0) out.push(make("span", "chip bad", number(v.dropped) + " records dropped"));
  return out;
}

function tiles(v) {
  const one = (name, value, below, kind) => make("div", "tile", make("span", "quiet " + (kind || ""), name), make("b", "", value), make("span", "quiet", below));
  const both = (name) => one(name + " a second", rate(v.rates[name]), number(v.totals[name]) + " in all", name);
  const refused = v.refused > 0 ? number(v.refused) + " above the limit" : "open now";
  return [both("allowed"), both("failed"), both("denied"), both("bypassed"),
    one("connections", number(v.connections), refused), one("under way", number(v.live), number(v.tunnels) + (v.tunnels === 1 ? " tunnel" : " tunnels"))];
}

// ask asks the daemon, with the token if there is one.
function ask(path, options) {
  const headers = { ...(options || {}).headers };
  if (token !== "") headers.Authorization = "Bearer " + token;
  return fetch(path, { cache: "no-store", ...options, headers });
}

// decide sends a decision and says what came of it.
async function decide(body) {
  let said = "";
  try {
    const answer = await ask("decision", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const text = await answer.text();
    let result = {};
    try { result = JSON.parse(text); } catch { result = { error: text }; }
    said = answer.ok ? body.id + ": " + result.done + " is done" : body.id + ": " + (result.error || "status " + answer.status);
    at("decided").className = answer.ok ? "good" : "bad";
  } catch (e) {
    said = body.id + ": no answer, look whether it was taken: " + e.message;
    at("decided").className = "bad";
  }
  at("decided").textContent = said;
  await load();
}

// decision is what a person can do about a proposal. What cannot be shown in full is not
// approved here.
function decision(p) {
  const reason = make("input", "");
  reason.placeholder = "why not, for whoever proposed it";
  const reject = make("button", "reject", "Reject");
  reject.addEventListener("click", () => decide({ id: p.id, verdict: "reject", reason: reason.value }));
  if (!p.hash) return make("div", "decision", make("span", "quiet", "Not everything that would change is shown; approve it in the container."), reason, reject);
  const approve = make("button", "approve", "Approve");
  approve.addEventListener("click", () => {
    if (approve.className === "approve") {
      approve.className = "approve armed";
      approve.textContent = "Yes, put it in force";
      return;
    }
    approve.disabled = true;
    decide({ id: p.id, verdict: "approve", hash: p.hash });
  });
  return make("div", "decision", approve, reason, reject);
}

function proposal(p, decides) {
  const line = (text) => make("div", text.startsWith("+") ? "gained" : text.startsWith("-") ? "lost" : "", text);
  const changes = make("pre", "", ...p.changes.map(line));
  if (p.more) changes.append(line("… and more"));
  const e = make("article", "proposal", make("code", "", p.id), " ", make("b", "", p.rule), " ",
    make("span", "quiet", "from " + p.source + ", " + clock(p.created)), make("div", "", p.rationale),
    ...p.notes.map((n) => make("div", "quiet", "note: " + n)), changes);
  if (decides) e.append(decision(p));
  return e;
}

// proposals draws them anew only when they changed, so that what a person is about to do
// is not lost.
function proposals(v) {
  at("proposals").hidden = !v.proposals;
  const from = JSON.stringify([v.proposals, v.decides]);
  if (!v.proposals || from === pendingShown) return;
  pendingShown = from;
  at("how").hidden = v.decides;
  at("pending").replaceChildren(...v.proposals.pending.map((p) => proposal(p, v.decides)));
  if (v.proposals.pending.length === 0) at("pending").append(make("p", "quiet", "none"));
  if (v.proposals.others > 0) at("pending").append(make("p", "quiet", "and " + number(v.proposals.others) + " more"));
}

function show(v) {
  at("state").replaceChildren(...chips(v));
  at("build").textContent = v.build + ", " + clock(v.time);
  at("tiles").replaceChildren(...tiles(v));
  chart("carried", v.hour, ["allowed", "failed"]);
  chart("refused", v.hour, ["denied", "bypassed"]);
  const denied = v.denied.rows.map((r) => [number(r.count), place(r), r.reason, r.program || "–", clock(r.last), r.request || "–"]);
  if (v.denied.others > 0) denied.push([number(v.denied.others), "others", "", "", "", ""]);
  table("denied", [["count", "number"], ["destination", "name"], ["reason", "word"], ["program", "name"], ["last", "number"], ["request", "word"]], denied);
  const used = v.destinations.rows.map((r) => [number(r.count), place(r), number(r.failed), bytes(r.sent), bytes(r.received), clock(r.last)]);
  if (v.destinations.others > 0) used.push([number(v.destinations.others), "others", "", "", "", ""]);
  table("destinations", [["count", "number"], ["destination", "name"], ["failed", "number"], ["sent", "number"], ["received", "number"], ["last", "number"]], used);
  const active = v.active.rows.map((r) => [number(r.count), place(r), r.program || "–", number(r.unread), clock(r.since)]);
  if (v.active.others > 0) active.push([number(v.active.others), "others", "", "", ""]);
  table("active", [["count", "number"], ["destination", "name"], ["program", "name"], ["unread", "number"], ["since", "number"]], active);
  proposals(v);
  at("failing").hidden = v.ready;
  table("checks", [["check", "word"], ["", "word"], ["detail", "name"]], v.checks.map((c) => [c.name, c.ok ? "ok" : "FAILED", c.detail]));
}

async function load() {
  try {
    const answer = await ask("view.json");
    at("login").hidden = answer.status !== 401;
    if (answer.status === 401) throw new Error(token === "" ? "the admin token is wanted" : "this is not the admin token");
    if (!answer.ok) throw new Error("status " + answer.status);
    show(await answer.json());
    document.body.dataset.shown = "yes";
  } catch (e) {
    at("state").replaceChildren(make("span", "chip bad", "no answer: " + e.message + "; what is below is old"));
  }
}

at("login").addEventListener("submit", (e) => {
  e.preventDefault();
  token = at("token").value.trim();
  at("token").value = "";
  load();
});

async function update() {
  await load();
  setTimeout(update, every);
}

update();
