// Keeps the files of the page, so that it works without a network once it was loaded.
importScripts("files.js"); // VERSION and FILES, written when the site is built

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(VERSION).then((cache) => cache.addAll(FILES)).then(() => self.skipWaiting()));
});
self.addEventListener("activate", (event) => {
  const old = (names) => names.filter((each) => each !== VERSION && each.startsWith("vtd-"));
  event.waitUntil(
    caches.keys().then((names) => Promise.all(old(names).map((each) => caches.delete(each)))).then(() => clients.claim()),
  );
});
self.addEventListener("fetch", (event) => {
  event.respondWith(caches.match(event.request, { ignoreSearch: true }).then((kept) => kept ?? fetch(event.request)));
});
