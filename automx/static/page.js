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

function button(className, label) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = className;
  made.setAttribute("aria-label", label);
  return made;
}

function addCopyButton(place) {
  const text = place.querySelector(".value").textContent;
  const copy = button("copy", `${words.copy}: ${text}`);
  copy.append(icon("copy"));
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    copy.replaceChildren(icon("done"));
    status.textContent = `${words.copied}: ${text}`;
    setTimeout(() => {
      copy.replaceChildren(icon("copy"));
      status.textContent = "";
    }, 2500);
  });
  place.append(copy);
}

function moveToDialog(place) {
  const dialog = document.createElement("dialog");
  const open = button("button quiet", place.querySelector("summary").textContent);
  open.textContent = open.ariaLabel;
  open.removeAttribute("aria-label");
  open.setAttribute("aria-haspopup", "dialog");
  const close = button("button", words.close);
  close.textContent = words.close;
  dialog.setAttribute("aria-label", open.textContent);
  dialog.append(place.querySelector("figure"), close);
  open.addEventListener("click", () => dialog.showModal());
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside the dialog
  });
  place.replaceWith(open);
  document.body.append(dialog);
}

if (navigator.clipboard) document.querySelectorAll("dd[data-copy]").forEach(addCopyButton);
document.querySelectorAll("details.code").forEach(moveToDialog);
