// Words that show where the model looked, and that can be pressed. One listener for all, so what is redrawn keeps working.
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
for (const kind of ["pointerover", "focusin"]) {
  element.addEventListener(kind, (event) => { clear(); if (word(event)) show(word(event)); });
}
for (const kind of ["pointerleave", "focusout"]) element.addEventListener(kind, clear);
element.addEventListener("click", (event) => {
  const sentence = event.target.closest && event.target.closest(".sentence");
  if (!sentence) return;
  const pressed = word(event);
  trigger("click", {
    sentence: Number(sentence.dataset.sentence),
    word: pressed ? Number(pressed.dataset.word) : null,
  });
});
