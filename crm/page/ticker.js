// A worker that says when to poll while the page is hidden: its timers are not slowed down as those of the page are.
setInterval(() => postMessage(null), 2000);
