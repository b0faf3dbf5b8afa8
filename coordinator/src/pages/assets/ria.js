// What pages do better with a script; all of them work without. Nothing is loaded from elsewhere.
"use strict";

// Copying: the button is there only where it works.
function offerCopies() {
  for (const button of document.querySelectorAll("[data-copy]")) {
    if (!navigator.clipboard) continue;
    button.hidden = false;
    button.onclick = async () => {
      const field = document.getElementById(button.dataset.copy);
      await navigator.clipboard.writeText(field.value);
      const text = button.textContent;
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = text; }, 2000);
    };
  }
}

// Somebody types, or has opened something: the page stays as it is until they are done.
function isInUse(main) {
  const active = document.activeElement;
  if (active && active !== main && main.contains(active) && active.matches("input, select, textarea, button")) return true;
  for (const field of main.querySelectorAll("input, select")) {
    if (field.type === "hidden") continue;
    if (field.type === "checkbox" ? field.checked !== field.defaultChecked : "defaultValue" in field && field.value !== field.defaultValue) return true;
  }
  return main.querySelector("details[open]") !== null;
}

// What has changed is fetched and put in place of what is shown.
async function refresh(main) {
  if (isInUse(main)) return false;
  const answer = await fetch(location.href, { credentials: "same-origin", headers: { Accept: "text/html" } });
  if (answer.redirected) { location.href = answer.url; return true; }
  if (!answer.ok) return false;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("main");
  if (!fresh || isInUse(main)) return false;
  if (fresh.innerHTML !== main.innerHTML) main.replaceChildren(...fresh.childNodes);
  offerCopies();
  return true;
}

function live(main) {
  const state = document.getElementById("live-state");
  let due = false, timer = null;
  const soon = (wait) => {
    due = true;
    if (timer) return;
    timer = setTimeout(async () => {
      timer = null;
      try { due = !(await refresh(main)); } catch { due = true; }
      if (due) soon(2000);
    }, wait);
  };
  const source = new EventSource(main.dataset.live);
  source.addEventListener("hello", () => { state.textContent = "· live"; });
  for (const name of ["network", "presence", "audit", "link", "uplink"]) source.addEventListener(name, () => soon(200));
  source.onerror = () => { state.textContent = "· not live: connecting"; };
}

offerCopies();
const main = document.getElementById("main");
if (main && main.dataset.live && window.EventSource) live(main);
