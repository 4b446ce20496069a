"use strict";
/* Polls the JSON of this gateway and draws it. Text enters the page as text only. */

const POLL_MS = 5000;
const LIST_MAX = 50;
const SPANS_MAX = 200;
const byId = (id) => document.getElementById(id);
let token = sessionStorage.getItem("weir-token") || "";

function make(name, attributes, ...children) {
  const svg = ["svg", "rect", "polyline", "title"].includes(name);
  const node = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "onclick") node.addEventListener("click", value);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const count = (n) => Number(n).toLocaleString();
const percent = (x, digits) => (x === null ? "–" : (100 * x).toFixed(digits) + " %");
const short = (x) => (x === null || x === undefined ? "–" : Number(x).toPrecision(3));

function seconds(s) {
  if (s === null || s === undefined) return "–";
  if (s < 1e-3) return (s * 1e6).toFixed(0) + " µs";
  if (s < 1) return (s * 1e3).toFixed(s < 0.1 ? 1 : 0) + " ms";
  if (s < 120) return s.toFixed(s < 10 ? 1 : 0) + " s";
  if (s < 7200) return (s / 60).toFixed(0) + " min";
  if (s < 172800) return (s / 3600).toFixed(0) + " h";
  return (s / 86400).toFixed(0) + " d";
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let n = bytes;
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i += 1; }
  return (i ? n.toFixed(1) : n) + " " + units[i];
}

/* Of a clock: ahead is +, behind is −. */
const offset = (s) => (s === null ? "–" : (s < 0 ? "−" : "+") + seconds(Math.abs(s)));

function money(amount, currency) {
  if (amount === null || amount === undefined) return "–";
  const text = amount && Math.abs(amount) < 1 ? amount.toPrecision(2)
    : amount.toLocaleString(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  return text + " " + currency;
}

const time = (ns) => new Date(ns / 1e6).toLocaleString();

async function request(path, options) {
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = "Bearer " + token;
  const answer = await fetch(path, { headers, ...options });
  if (answer.status === 401) {
    byId("login").hidden = false;
    byId("login-message").textContent = token ? "This token is not accepted." : "";
  }
  if (!answer.ok && answer.status !== 503) {
    const body = await answer.json().catch(() => ({}));
    throw new Error(body.detail || "status " + answer.status);
  }
  return answer.status === 204 ? null : answer.json();
}

function table(heads, rows) {
  const row = (cells, tag) =>
    make("tr", {}, ...cells.map((cell, i) =>
      make(tag, { class: heads[i].endsWith("#") ? "number" : null }, cell)));
  return make("table", {},
    make("thead", {}, row(heads.map((head) => head.replace("#", "")), "th")),
    make("tbody", {}, ...rows.map((cells) => row(cells, "td"))));
}

function fill(id, nodes, empty) {
  byId(id).replaceChildren(...(nodes.length ? nodes : [make("p", { class: "quiet" }, empty)]));
}

const PARTS = ["forwarded", "sampled_out", "dropped", "quarantined", "pending"];

function drawAccounting(rows) {
  fill("accounting", rows.map((row) => {
    const total = Math.max(1, row.received);
    const bar = make("div", { class: "flow" });
    for (const part of PARTS) {
      const piece = make("span", { class: "part-" + part, title: part + " " + count(row[part]) });
      piece.style.width = (100 * row[part]) / total + "%";
      bar.append(piece);
    }
    const keys = PARTS.map((part) => make("span", { class: "quiet" },
      make("span", { class: "key part-" + part }),
      part.replace("_", " ") + " " + count(row[part])));
    return make("div", { class: "item" },
      make("p", { class: "row" },
        make("strong", {}, row.signal + " → " + row.destination),
        make("span", {}, count(row.received) + " received"),
        make("span", { class: row.balanced ? "good" : "bad" },
          row.balanced ? "all accounted for" : "does not add up")),
      bar, make("p", { class: "row" }, ...keys));
  }), "Nothing received yet.");
}

function drawModels(page) {
  fill("models", page.items.length ? [table(
    ["model", "version", "events#", "success#", "p50#", "p95#", "p99#", "cold#"],
    page.items.map((m) => {
      const took = m.recent || m.all_time || {};
      return [m.model, m.version, count(m.succeeded + m.failed), percent(m.success_ratio, 2),
        seconds(took.p50_s), seconds(took.p95_s), seconds(took.p99_s), count(m.cold_starts)];
    }))] : [], "No inference seen yet.");
}

function drawSlos(page) {
  fill("slos", page.items.map((slo) => {
    const left = slo.budget_remaining_ratio;
    const rows = slo.windows.map((w) => {
      const level = w.burn_rate >= 6 ? "bad" : w.burn_rate > 1 ? "warn" : "";
      const bar = make("span", { class: level });
      bar.style.width = Math.min(100, (100 * Math.log1p(w.burn_rate || 0)) / Math.log1p(20)) + "%";
      return make("div", { class: "burn", title: count(w.bad) + " of " + count(w.good + w.bad) },
        make("span", {}, w.window), make("div", { class: "bar" }, bar),
        make("span", { class: level }, short(w.burn_rate) + " ×"));
    });
    return make("div", { class: "item" },
      make("p", { class: "row" },
        make("strong", {}, slo.model + " " + slo.slo),
        make("span", { class: "quiet" }, percent(slo.objective, 2) + " over " +
          seconds(slo.window_s) + (slo.threshold_s ? ", under " + seconds(slo.threshold_s) : "")),
        make("span", { class: left < 0 ? "bad" : left < 0.25 ? "warn" : "good" },
          percent(left, 1) + " of the budget left"),
        slo.exhaustion_s && left > 0 ? make("span", { class: slo.exhaustion_s < 86400 ? "warn"
          : "quiet" }, "lasts for " + seconds(slo.exhaustion_s)) : null),
      ...rows);
  }), "No objective is declared.");
}

/* One line: a name, how much of a limit is used, and the numbers. */
function spending(name, used, limit, warnFrom, text, hint) {
  const share = limit ? used / limit : used > 0 ? 1 : 0;
  const level = share >= 1 ? "bad" : share >= warnFrom ? "warn" : "";
  const bar = make("span", { class: level });
  bar.style.width = Math.min(100, 100 * Math.max(0, share)) + "%";
  return make("div", { class: "spend", title: hint },
    make("span", {}, name), make("div", { class: "bar" }, bar),
    make("span", { class: level }, text));
}

const STATES = { halted: "badge bad", warned: "badge warn", active: "badge good" };

function drawRollouts(page) {
  const items = page.items.slice(0, LIST_MAX).map((r) =>
    make("div", { class: "item" },
      make("p", { class: "row" },
        make("span", { class: STATES[r.state] || "badge" }, r.outcome.replace("_", " ") || r.state),
        make("strong", {}, r.model + " " + (r.previous ? r.previous + " → " : "") + r.version),
        make("span", { class: "quiet" }, r.id + " · " + r.kind + " · " + time(r.start_ns)),
        make("span", { class: r.failed ? "warn" : "" }, count(r.succeeded) +
          (r.devices === null ? "" : " of " + count(r.devices)) + " devices" +
          (r.failed ? ", " + count(r.failed) + " failed" : ""))),
      ...r.spends.map((s) => spending(s.slo, s.spent_ratio, s.allocation_ratio, 0.5,
        percent(s.spent_ratio, 1) + " of " + percent(s.allocation_ratio, 1) +
          (s.confident ? "" : ", unsure"),
        "bad: " + count(s.rollout_bad) + " of " + count(s.rollout_events) + "; with the version " +
          "before " + count(s.control_bad) + " of " + count(s.control_events)))));
  const models = page.models.map((m) => make("p", { class: "quiet" },
    m.model + " in 30 days: " + (m.success_ratio === null ? "no device reported"
      : percent(m.success_ratio, 1) + " of " + count(m.succeeded + m.failed) +
        " devices succeeded") + ", " + count(m.retrained) + " retrained"));
  const refused = Object.entries(page.refused).map(([reason, n]) =>
    make("p", { class: "warn" }, count(n) + " not used: " + reason.replaceAll("_", " ")));
  const all = items.length ? [...items, ...models, ...refused] : refused;
  fill("rollouts", all, "No rollout is declared.");
}

/* The 95 % interval as a bar between 0 and 100 %, with a mark at the estimate. */
function interval(found) {
  const [low, high] = [100 * found.low_ratio, 100 * found.high_ratio];
  const words = percent(found.low_ratio, 1) + " to " + percent(found.high_ratio, 1);
  return make("svg", { viewBox: "0 0 100 8", role: "img", "aria-label": words },
    make("rect", { class: "expected", x: 0, y: 3.5, width: 100, height: 1 }),
    make("rect", { class: "interval", x: low, y: 1, width: Math.max(1, high - low), height: 6 }),
    make("rect", { class: "estimate", x: Math.min(98.5, 100 * found.accuracy_ratio), y: 0,
      width: 1.5, height: 8 }));
}

function drawAccuracy(page) {
  const within = (found) => (found === null ? "–" : percent(found.accuracy_ratio, 1) + " (" +
    (100 * found.low_ratio).toFixed(1) + "–" + (100 * found.high_ratio).toFixed(1) + ")");
  // What labels have not told yet; a mark where a flag says that it may be wrong.
  const estimated = (found) => (found === null ? "–" : make("span", {
    class: found.contradicted || found.calibration.alarm ? "warn" : null,
    title: found.reason ?? found.assumption }, within(found.cbpe)));
  fill("accuracy", page.items.length ? [table(
    ["model", "version", "right#", "wrong#", "24 h#", "30 days#", "95 % interval",
      "by confidence#"],
    page.items.slice(0, LIST_MAX).map((a) => [a.model, a.version, count(a.right), count(a.wrong),
      within(a.day), within(a.month), a.month === null ? "" : interval(a.month),
      estimated(a.estimated)]))] : [],
  "No label has met its inference yet.");
}

function drawCosts(page) {
  const costs = page.items.map((c) => {
    const parts = [...c.parts].sort((a, b) => b.cost - a.cost).slice(0, 5).map((part) =>
      make("span", { class: "quiet" }, (part.version + " " + part.feature).trim() + " " +
        money(part.cost, c.currency)));
    const jobs = c.batch_jobs ? make("span", { class: "quiet" }, "batch jobs " +
      money(c.batch_jobs, c.currency)) : null;
    const bound = (name, amount) => (c.budget === null || amount === null ? null
      : spending(name, amount, c.budget, 0.8, money(amount, c.currency), null));
    return make("div", { class: "item" },
      make("p", { class: "row" },
        make("strong", {}, c.model), make("span", {}, money(c.spent, c.currency) + " spent"),
        make("span", { class: c.budget !== null && c.projected > c.budget ? "warn" : "quiet" },
          c.projected === null ? "too early to project" : "projected " +
            money(c.projected, c.currency)),
        make("span", { class: "quiet" }, c.budget === null ? "no budget"
          : "budget " + money(c.budget, c.currency))),
      bound("spent", c.spent), bound("projected", c.projected),
      make("p", { class: "row" }, ...parts, jobs));
  });
  const bytes = page.bandwidth.map((b) => make("div", { class: "item" },
    make("p", { class: "row" }, make("strong", {}, b.model + " " + b.slo),
      make("span", { class: "quiet" }, "bytes that may leave until " + time(b.end_ns))),
    spending("left", b.spent_bytes, b.allowance_bytes, 0.8,
      size(b.spent_bytes) + " of " + size(b.allowance_bytes), null)));
  fill("costs", [...costs, ...bytes], "No contract has a cost or an allowance of bytes.");
}

function drawDevices(page) {
  const shown = page.items.slice(0, LIST_MAX);
  const left = page.total - shown.length;
  fill("devices", shown.length ? [table(
    ["device", "model", "version", "accelerator", "heard before#", "clock#", "jitter#",
      "headroom#", "condition"],
    shown.map((d) => [make("code", {}, d.device), d.model || "–", d.version || "–",
      d.accelerator || "–",
      make("span", { class: d.silent ? "bad" : "" }, seconds(d.freshness_s)),
      offset(d.clock_offset_s), seconds(d.clock_jitter_s),
      make("span", { class: d.headroom_ratio !== null && d.headroom_ratio < 0.1 ? "bad" : "" },
        percent(d.headroom_ratio, 0)),
      make("span", { class: "warn" }, d.conditions.join(", ").replaceAll("_", " "))])),
    ...(left > 0 ? [make("p", { class: "quiet" }, "and " + count(left) +
      " that were heard later")] : [])] : [], "No device was heard yet.");
}

function bars(state) {
  const all = [...state.expected, ...state.current];
  if (!all.length) return null;
  const top = Math.max(...all, 1e-9);
  const svg = make("svg", { viewBox: "0 0 100 32", role: "img",
    "aria-label": "baseline and current shares" });
  const width = 100 / state.expected.length;
  state.expected.forEach((share, i) => {
    const old = (30 * share) / top;
    const now = (30 * (state.current[i] || 0)) / top;
    const label = (state.bins[i] || "bin " + i) + ": " + percent(share, 1) + " → " +
      percent(state.current[i] || 0, 1);
    svg.append(
      make("rect", { class: "expected", x: i * width, y: 31 - old, width: width * 0.9,
        height: old }, make("title", {}, label)),
      make("rect", { class: "current", x: i * width + width * 0.25, y: 31 - now,
        width: width * 0.4, height: now }, make("title", {}, label)));
  });
  return svg;
}

function sparkline(values) {
  if (values.length < 2) return null;
  const top = Math.max(...values, 0.1);
  const points = values.map((v, i) =>
    ((100 * i) / (values.length - 1)).toFixed(1) + "," + (19 - (18 * v) / top).toFixed(1));
  return make("svg", { viewBox: "0 0 100 20", role: "img", "aria-label": "recent PSI" },
    make("polyline", { class: "history", points: points.join(" ") }));
}

function drawDriftReport(page) {
  const names = page.reported.signals.slice(0, LIST_MAX).map((each) =>
    each.signal + " of " + each.model + " " + each.version).join(", ");
  const whose = page.budget.per === "site" ? "all " + count(page.budget.detectors) +
    " detectors together" : "each of " + count(page.budget.detectors) + " detectors";
  byId("drift-report").replaceChildren("Reported: " + (names || "none") +
    (names ? "; " + page.reported.promise : "") + ". Alarms: the budget holds for " + whose + ".");
}

/* How far a signal is from its baseline; 1 × is what noise alone reaches. */
function distance(state) {
  if (state.event_rate !== null) {
    const rate = state.event_rate;
    return rate.expected === null ? "usual rate: " + rate.state
      : short(rate.now) + " per second, " + short(rate.expected) + " expected; " +
        short(rate.low) + " to " + short(rate.high) + " would be no change";
  }
  if (state.psi === null) return "baseline " + state.baseline;
  const index = state.relative_drift_index;
  return (index === null ? "" : short(index) + " × noise, ") + "PSI " + short(state.psi);
}

const against = (evidence, bound) => "evidence " + evidence.toFixed(1) +
  (bound === null ? "" : " of " + bound.toFixed(1));

/* What the baseline that a promotion replaced says; it pages nobody. */
function shadow(state) {
  const old = state.superseded;
  if (old === null) return null;
  const alarms = old.alarms === 1 ? "1 alarm" : count(old.alarms) + " alarms";
  return make("p", { class: old.alarms ? "warn" : "quiet", title: old.id },
    "baseline " + old.id.slice(0, 12) + " in the shadow until " + time(old.until_ns) + ": " +
      against(old.log_evidence, old.log_evidence_bound) + ", " +
      (old.alarms ? alarms + ", the last at " + time(old.last_alarm_ns) : "no alarm"));
}

function drawDrift(page) {
  // Alarms first, also those of rates, which have no index.
  const order = [...page.items].sort((a, b) => b.alarm - a.alarm ||
    (b.relative_drift_index || 0) - (a.relative_drift_index || 0) || (b.psi || 0) - (a.psi || 0));
  fill("drift", order.slice(0, LIST_MAX).map((state) => {
    const bound = state.event_rate ? state.event_rate.bound : state.log_evidence_bound;
    return make("div", { class: state.alarm ? "card alarm" : "card" },
      make("h3", {}, state.event_rate ? "event rate" : state.signal),
      make("p", { class: "quiet" }, (state.model + " " + state.version).trim()),
      make("p", { class: state.alarm ? "bad" : "" }, distance(state)),
      state.log_evidence === null ? null : make("p", { class: "quiet" },
        against(state.log_evidence, bound)),
      state.calibrated === false ? make("p", { class: "warn" },
        "uncalibrated: the baseline is too small to alarm") : null,
      shadow(state), bars(state), sparkline(state.history));
  }), "No signal is watched.");
}

const CALLS = { delivered: "good", waiting: "quiet" };

/* What became of the webhooks that an anomaly asks for a training. */
function calls(view) {
  return view.retrain.map((call) => make("p", { class: CALLS[call.state] || "bad" },
    "retraining: " + call.endpoint + " " + call.state + ", " + count(call.attempts) +
      (call.attempts === 1 ? " attempt" : " attempts") + (call.error ? ": " + call.error : "")));
}

function drawAnomalies(page) {
  fill("anomalies", page.items.slice(0, LIST_MAX).map((view) => {
    const a = view.anomaly;
    const firing = view.state === "firing";
    const links = view.dives.map((id) => make("a", { href: "#dive-" + id }, "deep dive"));
    return make("div", { class: "item" },
      make("p", { class: "row" },
        make("span", { class: firing ? "badge bad" : "badge" }, view.state),
        make("strong", {}, (a.model + " " + a.version).trim() || "site"),
        make("span", {}, a.kind.replace("_", " ") + ": " + a.subject),
        make("span", { class: "quiet" }, a.severity + " · " + time(a.onset_ns))),
      make("p", {}, a.summary), ...calls(view),
      make("p", { class: "row" }, ...links,
        make("span", { class: "quiet" }, a.evidence.length + " traces as evidence"),
        firing ? make("button", { onclick: () => act("/api/v1/anomalies/" +
          encodeURIComponent(a.id) + "/ack", "POST") }, "Acknowledge") : null,
        firing && !view.dives.length ? make("button", { onclick: () => dive(a.id) },
          "Fetch traces") : null));
  }), "Nothing is wrong.");
}

function drawDives(page) {
  fill("dives", page.items.slice(0, LIST_MAX).map((d) =>
    make("div", { class: "item", id: "dive-" + d.id },
      make("p", { class: "row" },
        make("span", { class: d.state === "complete" ? "badge good" : "badge" }, d.state),
        make("strong", {}, d.traces_received + " of " + d.traces_wanted + " traces"),
        make("span", { class: "quiet" }, size(d.bytes) + " · " + time(d.created_ns)),
        d.traces_received ? make("button", { onclick: () => showTraces(d.id) },
          "Show traces") : null),
      d.reason ? make("p", {}, d.reason) : null,
      d.missing ? make("p", { class: "warn" }, d.missing) : null,
      ...d.devices.slice(0, 8).map((part) => make("p", { class: "quiet" },
        part.device + ": " + part.state + " " + part.detail)))), "None yet.");
}

function spanRows(otlp) {
  const rows = [];
  for (const resource of otlp.resourceSpans) {
    for (const scope of resource.scopeSpans || []) {
      for (const span of scope.spans || []) {
        const start = BigInt(span.startTimeUnixNano || 0);
        const end = BigInt(span.endTimeUnixNano || 0);
        rows.push({ span, start, length: Number(end - start) / 1e9 });
      }
    }
  }
  rows.sort((a, b) => a.span.traceId.localeCompare(b.span.traceId) ||
    (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  return rows.slice(0, SPANS_MAX);
}

function valueText(value) {
  if (!value) return "";
  const [found] = Object.values(value);
  return typeof found === "object" ? JSON.stringify(found) : String(found);
}

async function showTraces(id) {
  const panel = byId("trace");
  panel.replaceChildren(make("p", { class: "quiet" }, "loading"));
  try {
    const otlp = await request("/api/v1/dives/" + encodeURIComponent(id) + "/traces");
    const longest = new Map();
    const first = new Map();
    const rows = spanRows(otlp);
    for (const row of rows) {
      const key = row.span.traceId;
      if (!first.has(key)) first.set(key, row.start);
      const end = Number(row.start - first.get(key)) / 1e9 + row.length;
      longest.set(key, Math.max(longest.get(key) || 1e-9, end));
    }
    panel.replaceChildren(table(["trace", "span", "time#", "", "attributes"], rows.map((row) => {
      const key = row.span.traceId;
      const whole = longest.get(key);
      const failed = row.span.status && row.span.status.code === 2;
      const bar = make("svg", { viewBox: "0 0 100 8", width: 100, "aria-hidden": "true" },
        make("rect", { class: failed ? "span failed" : "span", y: 1, height: 6,
          x: (100 * Number(row.start - first.get(key))) / 1e9 / whole,
          width: Math.max(0.8, (100 * row.length) / whole) }));
      const words = (row.span.attributes || []).slice(0, 12)
        .map((item) => item.key + "=" + valueText(item.value)).join("  ");
      return [make("code", {}, key.slice(0, 8)), row.span.name || "", seconds(row.length), bar,
        make("code", {}, words)];
    })));
  } catch (error) {
    panel.replaceChildren(make("p", { class: "bad" }, error.message));
  }
}

async function act(path, method, body) {
  try {
    await request(path, { method, body, headers: { "Content-Type": "application/json",
      ...(token ? { Authorization: "Bearer " + token } : {}) } });
    await refresh();
  } catch (error) {
    byId("age").textContent = error.message;
  }
}

const dive = (id) => act("/api/v1/dives", "POST",
  JSON.stringify({ anomaly_id: id, reason: "asked for in the console" }));

function drawStatus(status, ready) {
  byId("site").textContent = status.site;
  document.title = "Weir " + status.site;
  const badge = byId("ready");
  const failing = ready.checks.filter((check) => !check.ok);
  badge.className = ready.ready ? "badge good" : "badge bad";
  badge.textContent = ready.ready ? "ready"
    : "not ready: " + failing.map((check) => check.check + " " + check.detail).join(", ");
  const rows = {
    version: status.version, "up for": seconds(status.uptime_s), policy: status.policy,
    contracts: status.contracts.map((c) => c.model).join(", ") || "none",
    journal: size(status.journal_bytes),
    store: size(status.store_bytes) + " in " + status.store_segments + " segments, " +
      count(status.store_pending_rows) + " rows pending",
  };
  byId("status").replaceChildren(...Object.entries(rows).flatMap(([key, value]) =>
    [make("dt", {}, key), make("dd", {}, value)]));
}

async function refresh() {
  try {
    const paths = ["status", "models", "slo", "drift", "anomalies", "dives", "rollouts",
      "accuracy", "costs", "devices"];
    const [ready, status, models, slos, drift, anomalies, dives, rollouts, accuracy, costs,
      devices] = await Promise.all(
      [request("/readyz"), ...paths.map((path) => request("/api/v1/" + path))]);
    byId("login").hidden = true;
    drawStatus(status, ready);
    drawAccounting(status.accounting);
    drawModels(models);
    drawSlos(slos);
    drawDriftReport(drift);
    drawDrift(drift);
    drawAnomalies(anomalies);
    drawDives(dives);
    drawRollouts(rollouts);
    drawAccuracy(accuracy);
    drawCosts(costs);
    drawDevices(devices);
    byId("age").textContent = "as of " + new Date().toLocaleTimeString();
  } catch (error) {
    byId("age").textContent = error.message;
    byId("ready").className = "badge bad";
    byId("ready").textContent = "no answer";
  }
}

byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  sessionStorage.setItem("weir-token", token);
  refresh();
});

function poll() {
  const next = () => setTimeout(poll, POLL_MS);
  if (document.hidden) next();
  else refresh().finally(next);
}
poll();
