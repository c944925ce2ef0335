// Starts a page: confirmation of acts, keys, and the live rows. Everything here has a form or a link that works alone.
import { follow, stop } from "./live.js";

const KEYS = { o: "/ui/", j: "/ui/jobs", f: "/ui/failures", q: "/ui/queues", w: "/ui/workers", c: "/ui/schedules", s: "/ui/search", d: "/ui/documents", a: "/ui/audit" };

function confirmAct(form) {
  const dialog = document.createElement("dialog");
  const question = document.createElement("p");
  const back = document.createElement("button");
  const go = document.createElement("button");
  question.textContent = form.dataset.confirm;
  back.textContent = "Back";
  go.textContent = form.querySelector("button").textContent;
  go.className = "danger";
  dialog.append(question, back, " ", go);
  document.body.append(dialog);
  back.addEventListener("click", () => dialog.close());
  go.addEventListener("click", () => { delete form.dataset.confirm; form.requestSubmit(); });
  dialog.addEventListener("close", () => { dialog.remove(); form.querySelector("button").focus(); });
  dialog.showModal();
  back.focus();
}

document.addEventListener("submit", (event) => {
  if (event.target.dataset.confirm) {
    event.preventDefault();
    confirmAct(event.target);
  } else {
    stop(); // the end of a job must not reload the page under the answer to this form
  }
});

let waitsForPage = 0;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog")) return;
  if (event.key === "/") {
    event.preventDefault();
    document.getElementById("go")?.focus();
  } else if (event.key === "g") {
    waitsForPage = Date.now();
  } else if (KEYS[event.key] && Date.now() - waitsForPage < 1500) {
    location.assign(KEYS[event.key]);
  } else if (event.key === "r") {
    location.reload();
  }
});

follow();
