const form = document.querySelector(".controls");
if (form) {
  const grid = document.querySelector(".cards"), more = document.querySelector(".more"), cards = [...grid.children];
  const orders = {
    score: (a, b) => b.score - a.score, unsure: (a, b) => a.score - b.score,
    length: (a, b) => b.length - a.length, small: (a, b) => a.pixels - b.pixels
  };
  const page = 60;
  let limit = page;
  const show = () => {
    const { set, kind, choice, order } = Object.fromEntries(new FormData(form));
    const chosen = cards.filter(({ dataset: data }) => (!set || data.set === set) && (!kind || data.kind === kind)
      && (!choice || data.choice.split(" ").includes(choice)));
    if (order) chosen.sort((a, b) => orders[order](a.dataset, b.dataset));
    const shown = chosen.slice(0, limit);
    grid.replaceChildren(...shown);
    more.hidden = shown.length === chosen.length;
    form.querySelector("output").textContent = shown.length + " of " + chosen.length + " shown";
  };
  form.addEventListener("change", () => { limit = page; show(); });
  more.addEventListener("click", () => { limit += page; show(); });
  form.hidden = false;
  show();
}
