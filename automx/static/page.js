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

function addCopyButton(place) {
  const value = place.querySelector(".value");
  const text = value.textContent;
  const copy = button("copy", icon("copy"));
  copy.setAttribute("aria-label", `${words.copy}: ${text}`);
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      getSelection().selectAllChildren(value); // the browser does not permit more
      return;
    }
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

if (navigator.clipboard) document.querySelectorAll("dd[data-copy]").forEach(addCopyButton);
document.querySelectorAll("details.code").forEach(moveToDialog);
