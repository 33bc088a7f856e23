(() => {
  "use strict";
  const main = document.querySelector("main");
  const live = document.getElementById("live");
  const said = document.getElementById("said");
  const button = document.getElementById("pause");
  const url = new URL(location.href);
  url.searchParams.set("format", "fragment");
  let paused = false;

  // Text that the reader has selected, perhaps to copy it, must not be replaced.
  const selecting = () => {
    const s = getSelection();
    return s && !s.isCollapsed && main.contains(s.anchorNode);
  };

  const show = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html").querySelector("main");
    const open = [...main.querySelectorAll("details")].map((d) => d.open);
    [...fresh.querySelectorAll("details")].forEach((d, i) => { d.open = !!open[i]; });
    const focused = [...main.querySelectorAll("summary")].indexOf(document.activeElement);
    main.dataset.time = fresh.dataset.time;
    main.replaceChildren(...fresh.childNodes);
    if (focused >= 0) main.querySelectorAll("summary")[focused]?.focus({ preventScroll: true });
    said.textContent = "live, " + fresh.dataset.time;
    live.className = "live on";
  };

  const refresh = async () => {
    if (!paused && !document.hidden && !selecting()) {
      try {
        const answer = await fetch(url, { cache: "no-store", credentials: "same-origin" });
        if (!answer.ok) throw new Error(answer.statusText);
        const text = await answer.text();
        if (!paused) show(text);
      } catch {
        live.className = "live lost";
        said.textContent = "no answer since " + main.dataset.time;
      }
    }
    setTimeout(refresh, 1000);
  };

  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Resume" : "Pause";
    if (paused) {
      live.className = "live";
      said.textContent = "paused at " + main.dataset.time;
    }
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) live.className = "live"; });
  refresh();
})();
