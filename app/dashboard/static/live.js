// Live rows: one stream while the tab is visible, merged on the server; a hidden tab asks nothing.
const MAX_ROWS = 200;
const light = document.getElementById("live");
let source = null;

function say(text) {
  if (light) light.textContent = text;
}

function openRows() {
  return [...document.querySelectorAll("[data-job]")].filter((row) => row.dataset.open !== "no").slice(0, MAX_ROWS);
}

function patch(id, job) {
  const row = document.getElementById("job-" + id);
  const badge = row?.querySelector(".job-state .state");
  if (!badge) return;
  if (!badge.classList.contains("state-" + job.state)) {
    badge.className = "state state-" + job.state;
    badge.lastChild.data = " " + job.state;
    row.classList.remove("changed");
    requestAnimationFrame(() => row.classList.add("changed"));
    if (row.tagName === "TR") row.className = "row-" + job.state + " changed";
  }
  const place = row.querySelector(".job-bar");
  const percent = job.state === "running" ? job.percent : null;
  if (percent === null || percent === undefined) {
    place.replaceChildren();
    return;
  }
  let bar = place.querySelector("progress");
  if (!bar) {
    bar = document.createElement("progress");
    bar.max = 100;
    bar.setAttribute("aria-label", "Progress of job " + id.slice(-8));
    const number = document.createElement("span");
    number.className = "number";
    place.replaceChildren(bar, " ", number);
  }
  bar.value = percent;
  place.querySelector(".number").textContent = Math.round(percent) + " %" + (job.stage ? " " + job.stage : "");
}

function start() {
  const ids = openRows().map((row) => row.dataset.job);
  if (source || !ids.length || document.hidden) return;
  source = new EventSource("/ui/live?background=1&job=" + ids.join("&job="));
  source.addEventListener("open", () => say("live"));
  source.addEventListener("rows", (event) => {
    const jobs = JSON.parse(event.data);
    for (const id in jobs) patch(id, jobs[id]);
  });
  source.addEventListener("ended", (event) => {
    // The page of a job shows what its end changed: error, attempts, result.
    if (document.querySelector(".head[data-job='" + event.data + "']")) location.reload();
  });
  source.addEventListener("bye", () => { stop(); say("signed out, or the server stops"); });
  source.addEventListener("error", () => say("reconnecting, shown as of " + new Date().toLocaleTimeString()));
}

export function stop() {
  source?.close();
  source = null;
}

export function follow() {
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : start()));
  addEventListener("pagehide", stop);
  start();
}
