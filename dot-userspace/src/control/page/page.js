// The page of dotd: asks /api/state every two seconds and shows it. It asks no other host, and writes text as text: what a client
// chose (a server name, a prefix, a reason) is never read as markup.
"use strict";

const INTERVAL_MS = 2000, POINTS = 90;
const $ = (id) => document.getElementById(id);
let token = "", before = null, timer = 0, sure_until = 0;
const history = { queries: [], handshakes: [], drops: [], p50: [], p99: [] };

// The token comes behind the #, which no browser sends; it stays in this tab.
function take_token() {
  if (location.hash.length > 1) {
    sessionStorage.setItem("token", location.hash.slice(1));
    window.history.replaceState(null, "", location.pathname);
  }
  token = sessionStorage.getItem("token") || "";
}

async function ask(path, body) {
  const headers = token ? { authorization: "Bearer " + token } : {};
  const request = body === undefined
    ? { headers }
    : { method: "POST", headers: { ...headers, "content-type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, { ...request, cache: "no-store", credentials: "omit", redirect: "error" });
  const said = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(said.error || answer.status), { status: answer.status });
  return said;
}

function element(name, text, kind) {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

// Cells are text, or [text, class], or an element. Rows that say the same stay, so that the keyboard's place does too.
function rows(table, list) {
  const body = $(table).tBodies[0], focused = document.activeElement && document.activeElement.dataset.key;
  const made = list.map((cells) => {
    const row = document.createElement("tr");
    for (const cell of cells) {
      if (cell instanceof Node) { const place = document.createElement("td"); place.append(cell); row.append(place); }
      else if (Array.isArray(cell)) row.append(element("td", cell[0], cell[1]));
      else row.append(element("td", cell));
    }
    return row;
  });
  if (!made.length) {
    const none = element("td", "none", "note");
    none.colSpan = $(table).tHead.rows[0].cells.length;
    const row = document.createElement("tr");
    row.append(none);
    made.push(row);
  }
  body.replaceChildren(...made);
  if (focused) for (const button of body.querySelectorAll("button")) if (button.dataset.key === focused) button.focus();
}

function button(text, key, act) {
  const made = element("button", text);
  made.type = "button";
  made.dataset.key = key;
  made.addEventListener("click", act);
  return made;
}

function weight(backend, switches) {
  const made = document.createElement("input");
  made.type = "number";
  made.min = 1;
  made.max = 1000;
  made.dataset.key = "weight " + backend.name;
  made.setAttribute("aria-label", "Weight of " + backend.name);
  if (backend.weight !== undefined) made.value = backend.weight;
  made.addEventListener("change", () => { made.blur(); switches({ weight: Number(made.value) })(); });
  return made;
}

const number = (value, kind) => [value >= 100 || Number.isInteger(value) ? Math.round(value).toLocaleString("en") : value.toFixed(1), "n " + (kind || "")];
const time = (us) => us === null ? "" : us < 1e3 ? us.toFixed(0) + " µs" : us < 1e6 ? (us / 1e3).toFixed(us < 1e4 ? 2 : 1) + " ms" : (us / 1e6).toFixed(2) + " s";
const span = (seconds) => seconds < 120 ? seconds + " s" : seconds < 7200 ? Math.floor(seconds / 60) + " min" : seconds < 172800 ? Math.floor(seconds / 3600) + " h" : Math.floor(seconds / 86400) + " days";

function chart(id, series) {
  const drawing = $(id), top = Math.max(1e-9, ...series.flat());
  drawing.setAttribute("viewBox", `0 0 ${POINTS - 1} 100`);
  drawing.setAttribute("preserveAspectRatio", "none");
  drawing.replaceChildren(...series.map((values, place) => {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    const first = POINTS - values.length;
    line.setAttribute("points", values.map((value, at) => `${first + at},${98 - 94 * value / top}`).join(" "));
    if (place) line.setAttribute("class", "second");
    return line;
  }));
}

function note(list, value) {
  list.push(value);
  if (list.length > POINTS) list.shift();
}

// What a histogram has more than before, and the microseconds that a part of it did not exceed.
function window_of(now, old) {
  const had = new Map(old ? old.buckets : []);
  return now.buckets.map(([bucket, count]) => [bucket, count - (had.get(bucket) || 0)]).filter(([, count]) => count > 0);
}
function quantile(buckets, part) {
  const all = buckets.reduce((sum, [, count]) => sum + count, 0);
  let seen = 0;
  for (const [bucket, count] of buckets) {
    seen += count;
    if (seen >= Math.max(1, Math.ceil(all * part))) return bucket < -1000 ? 0.5 : 2 ** ((bucket - 0.5) / 8) * 1e6;
  }
  return null;
}
const same = (one, other) => one.of === other.of && JSON.stringify(one.labels) === JSON.stringify(other.labels);

function show(now) {
  const seconds = before ? Math.max(0.2, (now.at_ms - before.at_ms) / 1000) : 0;
  const rate = (name) => seconds ? Math.max(0, now.totals[name] - before.totals[name]) / seconds : 0;
  const status = now.status, can = now.can_change;
  const serving = status.state === "serving" && !status.drain && !status.off;
  $("summary").textContent = `${status.version}, ${status.off ? "DNS over TLS is switched off; " : ""}${status.drain ? "drained: load balancers are told to send no new clients" : status.state}, up ${span(status.uptime_seconds)}, ` +
    `${now.totals.open.toLocaleString("en")} connections open` + (status.servfail_percent ? `; clients get SERVFAIL for ${status.servfail_percent} % of their queries` : "");
  $("summary").className = serving && !status.servfail_percent ? "good" : "bad";
  $("drain").hidden = !can;
  $("drain").textContent = status.drain ? "Undrain" : "Drain";
  $("drain").onclick = () => act("/api/drain", { is_on: !status.drain });
  // Off is asked twice: the second time within five seconds.
  $("dot").hidden = !can;
  $("dot").textContent = status.off ? "Switch DNS over TLS on" : now.at_ms < sure_until ? "Really switch it off?" : "Switch DNS over TLS off";
  $("dot").onclick = () => {
    const is_sure = status.off || Date.now() < sure_until;
    sure_until = is_sure ? 0 : Date.now() + 5000;
    if (is_sure) act("/api/dot", { is_on: Boolean(status.off) });
    else $("dot").textContent = "Really switch it off?";
  };
  $("ban").hidden = !can;
  $("login").hidden = can;

  const drops = now.drops.map((row) => {
    const old = before && before.drops.find((other) => other.by === row.by && other.what === row.what && other.reason === row.reason);
    return { ...row, rate: seconds ? Math.max(0, row.total - (old ? old.total : 0)) / seconds : 0 };
  }).sort((a, b) => b.rate - a.rate || b.total - a.total);
  const windows = now.top.durations.map((one) => ({ ...one, window: window_of(one, before && before.top.durations.find((other) => same(one, other))) }));
  const tls = windows.filter((one) => one.of === "query" && one.labels.transport === "dot").flatMap((one) => one.window).sort((a, b) => a[0] - b[0]);
  const [p50, p99] = [quantile(tls, 0.5), quantile(tls, 0.99)];
  if (seconds) {
    note(history.queries, rate("queries"));
    note(history.handshakes, rate("handshakes_full") + rate("handshakes_resumed"));
    note(history.drops, drops.reduce((sum, row) => sum + row.rate, 0));
    note(history.p50, p50 || 0);
    note(history.p99, p99 || 0);
  }
  const last = (list) => list.length ? list[list.length - 1] : 0;
  for (const name of ["queries", "handshakes", "drops"]) {
    chart("chart-" + name, [history[name]]);
    $("now-" + name).textContent = number(last(history[name]))[0];
  }
  chart("chart-latency", [history.p50, history.p99]);
  $("now-latency").textContent = p50 === null ? "" : `${time(p50)}, ${time(p99)}`;

  const kernel = now.encryption.kernel, counted = (key) => number(now.encryption.counts[key]);
  const per = (key) => number(seconds ? Math.max(0, now.encryption.counts[key] - before.encryption.counts[key]) / seconds : 0);
  $("encryption-says").textContent = now.encryption.says;
  $("encryption-says").className = now.encryption.is_well ? "good" : "bad";
  rows("encryption", now.encryption.rows.map(([key, what]) => [what, counted(key), per(key)]));

  const xdp = status.xdp, paths = xdp.paths;
  $("xdp-says").textContent = `${xdp.state}${xdp.reason ? ` (${xdp.reason})` : ""}${xdp.degraded ? `; degraded: ${xdp.degraded}` : ""}; ways in: ` +
    `${paths.xdp} covered by XDP, ${paths.tc} by tc ingress, ${paths.not_covered} not covered`;
  $("xdp-says").className = xdp.degraded || (kernel && paths.not_covered) ? "bad" : "";
  rows("interfaces", xdp.interfaces.map((one) => [one.name, [one.mode, one.degraded ? "bad" : ""], one.learner, one.reason || ""]));
  rows("drops", drops.slice(0, 20).map((row) => [`${row.by} ${row.what}`, row.reason, number(row.rate), number(row.total), [row.key || "", "code"]]));
  rows("stages", windows.filter((one) => one.of !== "backend" && one.window.length).map((one) => {
    const all = one.window.reduce((sum, [, count]) => sum + count, 0);
    const name = (one.of === "stage" ? "" : one.of + " ") + Object.values(one.labels).join(" ");
    return [name, number(seconds ? all / seconds : 0), ...[0.5, 0.9, 0.99].map((part) => [time(quantile(one.window, part)), "n"])];
  }));

  const banned = new Set(now.bans.map((ban) => ban.prefix));
  const clients = now.top.clients.map((client) => {
    const old = before && before.top.clients.find((other) => other.prefix === client.prefix);
    const of = (effort) => client.counts[effort] === undefined || !seconds ? 0 :
      Math.max(0, client.counts[effort] - ((old && old.counts[effort]) || (client.excess && client.excess[effort]) || 0)) / seconds;
    return { prefix: client.prefix, of: ["queries", "octets", "handshakes", "refusals"].map(of) };
  }).sort((a, b) => b.of[0] - a.of[0] || (a.prefix < b.prefix ? -1 : 1));
  rows("clients", clients.slice(0, 20).map((client) => [[client.prefix, "code"], ...client.of.map((one) => number(one)),
    !can ? "" : banned.has(client.prefix) ? "banned" : button("Ban", "ban " + client.prefix, () => act("/api/ban", { client: client.prefix, seconds: null, reason: "page" }))]));
  rows("bans", now.bans.map((ban) => [[ban.prefix, "code"], ban.reason || ban.cause || "", [span(ban.seconds_left), "n"], number(ban.hits),
    can ? button("Lift", "lift " + ban.prefix, () => act("/api/unban", { client: ban.prefix })) : ""]));

  // A weight that is being typed stays.
  const is_typing = document.activeElement && document.activeElement.closest("#backends input");
  if (!is_typing) rows("backends", status.backends.map((backend) => {
    const of = (label) => {
      const count = (state) => (state.backends[backend.name] || {})[label] || 0;
      return number(seconds ? Math.max(0, count(now) - count(before)) / seconds : 0);
    };
    const took = windows.filter((one) => one.of === "backend" && one.labels.backend === backend.name).flatMap((one) => one.window).sort((a, b) => a[0] - b[0]);
    const switches = (change) => () => act("/api/backend", { name: backend.name, switch: change }, "backend-says");
    const state = (backend.is_drained ? "drained, " : "") + backend.state + (backend.reason ? `: ${backend.reason}` : "") + (backend.servfail_percent ? `, SERVFAIL ${backend.servfail_percent} %` : "");
    return [backend.name, [`${backend.address} ${backend.transport}`, "code"], [state, backend.state === "up" ? "good" : backend.state === "unchecked" ? "" : "bad"],
      of("asked"), of("lost"), [time(quantile(took, 0.5)), "n"], [time(quantile(took, 0.99)), "n"],
      can ? weight(backend, switches) : backend.weight === undefined ? "" : number(backend.weight),
      can ? button(backend.is_drained ? "Enable" : "Drain", "backend " + backend.name, switches(backend.is_drained ? "enable" : "drain")) : ""];
  }));
  rows("certificates", status.certificates.map((one) => {
    const left = Math.floor(one.not_after_unix - now.at_ms / 1000);
    const ends = new Date(one.not_after_unix * 1000).toISOString().slice(0, 10) + (left < 0 ? ", EXPIRED" : `, in ${span(left)}`);
    return [[one.name, "code"], one.dns_names.join(", "), [ends, left < 7 * 86400 ? "bad" : ""], [one.spki_pin, "code"]];
  }));
  rows("config", now.config.map((row) => [[row.key, "code"], [row.value, "code"], row.waits ? row.from + "; another value needs a restart" : row.from]));
  $("main").hidden = false;
  before = now;
}

async function act(path, body, says = "ban-says") {
  try {
    await ask(path, body);
    $(says).textContent = "";
  } catch (error) {
    $(says).textContent = error.message;
  }
  look();
}

async function look() {
  clearTimeout(timer);
  try {
    show(await ask("/api/state"));
    $("trouble").hidden = true;
  } catch (error) {
    if (error.status === 401) {
      $("login").hidden = false;
      $("summary").textContent = token ? "this is not the token of this dotd" : "reading needs a token";
    } else {
      $("trouble").textContent = "no answer: " + error.message;
      $("trouble").hidden = false;
    }
  }
  if (!document.hidden) timer = setTimeout(look, INTERVAL_MS);
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  $("token").value = "";
  take_token();
  look();
});
$("ban").addEventListener("submit", (event) => {
  event.preventDefault();
  act("/api/ban", { client: $("ban-client").value.trim(), seconds: Number($("ban-seconds").value) || null, reason: $("ban-reason").value });
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
window.addEventListener("hashchange", () => { take_token(); look(); });
take_token();
look();
