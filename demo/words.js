// Words that show where the model looked, and that can be pressed. One listener for all, so what is redrawn keeps working.
// Among them one is in the order of Tab, and the arrow keys move on from it: to the next word, up and down to a sentence.
const show = (button) => {
  const sentence = button.closest(".sentence");
  const looks = JSON.parse(button.dataset.looks || "[]");
  sentence.querySelectorAll(".source [data-word]").forEach((word, place) => {
    word.style.setProperty("--look", looks[place] || 0);
  });
};
const clear = () => {
  element.querySelectorAll(".source [data-word]").forEach((word) => word.style.removeProperty("--look"));
};
const word = (event) => event.target.closest && event.target.closest(".target [data-word]");
const all = () => [...element.querySelectorAll(".target [data-word]")];
const place = (button) => [button.closest(".sentence").dataset.sentence, button.dataset.word].join(" ");
let last = null; // place of the word that had the focus, and whether it still has it
let within = false;
const settle = () => {
  const buttons = all();
  const current = buttons.find((button) => place(button) === last) || buttons[0];
  for (const button of buttons) {
    const stop = button === current ? "0" : "-1";
    if (button.getAttribute("tabindex") !== stop) button.setAttribute("tabindex", stop);
  }
  if (within && current && !buttons.includes(document.activeElement)) current.focus({ preventScroll: true });
};
for (const kind of ["pointerover", "focusin"]) {
  element.addEventListener(kind, (event) => { clear(); if (word(event)) show(word(event)); });
}
for (const kind of ["pointerleave", "focusout"]) element.addEventListener(kind, clear);
element.addEventListener("focusin", (event) => {
  if (!word(event)) return;
  [last, within] = [place(word(event)), true];
  settle();
});
// a word that is redrawn loses the focus to nothing, a visitor who leaves gives it to something else
document.addEventListener("focusin", (event) => { within = element.contains(event.target); });
document.addEventListener("pointerdown", (event) => { if (!element.contains(event.target)) within = false; });
element.addEventListener("keydown", (event) => {
  const buttons = all();
  const here = buttons.indexOf(word(event));
  if (here < 0) return;
  const first = (sentence) => sentence && sentence.querySelector(".target [data-word]");
  const sentence = word(event).closest(".sentence");
  const right = getComputedStyle(word(event).parentElement).direction === "rtl" ? -1 : 1;
  const next = {
    ArrowRight: buttons[here + right],
    ArrowLeft: buttons[here - right],
    ArrowDown: first(sentence.nextElementSibling),
    ArrowUp: first(sentence.previousElementSibling),
    Home: buttons[0],
    End: buttons.at(-1),
  }[event.key];
  if (!next) return;
  event.preventDefault();
  next.focus();
});
element.addEventListener("click", (event) => {
  const sentence = event.target.closest && event.target.closest(".sentence");
  if (!sentence) return;
  const pressed = word(event);
  trigger("click", {
    sentence: Number(sentence.dataset.sentence),
    word: pressed ? Number(pressed.dataset.word) : null,
  });
});
document.addEventListener("keydown", (event) => { // the framework's own is Shift and Enter
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || !event.target.closest("#source")) return;
  event.preventDefault();
  document.querySelector("#go").click();
});
const name = () => { // its label names the button to copy, the first thing in it
  const label = document.querySelector("#target [data-testid=block-info]");
  const box = document.querySelector("#target textarea");
  if (!label || !box) return requestAnimationFrame(name); // drawn later than this on a slow machine
  label.id = "target-name";
  box.setAttribute("aria-labelledby", label.id);
};
name();
new MutationObserver(settle).observe(element, { childList: true, subtree: true, attributeFilter: ["tabindex"] });
settle();
