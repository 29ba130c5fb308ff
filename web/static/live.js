// Keeps an open page current: when the server says that something changed, fetch the page again and
// put in the sections that differ. Without this script the page reloads itself every 30 seconds.
"use strict";

(() => {
  const live = document.getElementById("live");
  const main = document.getElementById("main");
  if (!live || !main || !window.EventSource) return;

  const say = (text) => {
    if (live.textContent !== text) live.textContent = text;
  };

  const replace = (old, fresh) => {
    const held = document.activeElement;
    const href = old.contains(held) ? held.getAttribute("href") : null;
    for (const part of old.querySelectorAll("details[open][id]")) {
      const twin = fresh.querySelector("#" + CSS.escape(part.id));
      if (twin) twin.open = true;
    }
    old.replaceWith(fresh);
    if (href !== null) {
      const twin = fresh.querySelector('a[href="' + CSS.escape(href) + '"]');
      if (twin) twin.focus();
    }
  };

  const refresh = async () => {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok) return location.reload();
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("main");
    if (!fresh) return location.reload();
    const ids = (root) => [...root.querySelectorAll("section[id]")].map((part) => part.id).join();
    if (ids(fresh) !== ids(main)) return location.reload();
    for (const part of fresh.querySelectorAll("section[id]")) {
      const old = document.getElementById(part.id);
      if (old.innerHTML !== part.innerHTML) replace(old, part);
    }
    say("Live. " + (fresh.dataset.summary || ""));
  };

  const source = new EventSource("/events");
  source.addEventListener("open", () => {
    say("Live. " + (main.dataset.summary || ""));
    if (source.opened) refresh().catch(() => say("Connection lost; trying again."));
    source.opened = true;
  });
  source.addEventListener("change", () => {
    refresh().catch(() => say("Connection lost; trying again."));
  });
  source.addEventListener("error", () => say("Connection lost; trying again."));
  window.addEventListener("pagehide", () => source.close());
})();
