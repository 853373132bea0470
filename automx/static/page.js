/* Adds what needs a script: buttons that copy, and the QR code in a dialog. */
"use strict";

const words = document.body.dataset;
const status = document.getElementById("status");
const svg = "http://www.w3.org/2000/svg";

function icon(name) {
  const drawing = document.createElementNS(svg, "svg");
  drawing.setAttribute("class", "icon");
  drawing.setAttribute("aria-hidden", "true");
  drawing.append(document.createElementNS(svg, "use"));
  drawing.firstChild.setAttribute("href", `#i-${name}`);
  return drawing;
}

function button(className, ...content) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = className;
  made.append(...content);
  return made;
}

// Lets a button copy a text; what a browser does not permit to copy is selected.
function onClickCopy(copy, text, told, selected) {
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      getSelection().selectAllChildren(selected);
      return;
    }
    copy.querySelector(".icon").replaceWith(icon("done"));
    status.textContent = told;
    setTimeout(() => {
      copy.querySelector(".icon").replaceWith(icon("copy"));
      status.textContent = "";
    }, 2500);
  });
}

function addCopyButton(place) {
  const value = place.querySelector(".value");
  const text = value.textContent;
  const copy = button("copy", icon("copy"));
  copy.setAttribute("aria-label", `${words.copy}: ${text}`);
  onClickCopy(copy, text, `${words.copied}: ${text}`, value);
  place.append(copy);
}

// The text of a card: its title, and a line for each setting.
function settingsOf(card) {
  const rows = [...card.querySelectorAll("dl > div")].map((row) => {
    const value = row.querySelector("dd .value") ?? row.querySelector("dd");
    return `${row.querySelector("dt").textContent}: ${value.textContent.trim()}`;
  });
  return [card.querySelector("h3").textContent.trim(), ...rows].join("\n");
}

function addCopyAllButton(place) {
  const settings = place.closest("#settings");
  const cards = [...settings.querySelectorAll(".service")];
  const copy = button("button quiet", icon("copy"), words.copyAll);
  const text = cards.map(settingsOf).join("\n\n");
  onClickCopy(copy, `${text}\n`, words.copied, settings.querySelector(".services"));
  place.append(copy);
}

function moveToDialog(place) {
  const dialog = document.createElement("dialog");
  const title = document.createElement("h2");
  const open = button("button quiet", place.querySelector("summary").textContent);
  const close = button("button", words.close);
  title.textContent = open.textContent;
  title.id = "h-code";
  dialog.setAttribute("aria-labelledby", title.id);
  dialog.append(title, place.querySelector("figure"), close);
  open.setAttribute("aria-haspopup", "dialog");
  open.addEventListener("click", () => dialog.showModal());
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside the dialog
  });
  place.replaceWith(open);
  document.body.append(dialog);
}

if (navigator.clipboard) {
  document.querySelectorAll(".copy-all").forEach(addCopyAllButton);
  document.querySelectorAll("dd[data-copy]").forEach(addCopyButton);
}
document.querySelectorAll("details.code").forEach(moveToDialog);
