// The Try it page: takes inputs, asks the engine, and shows the documents that it answers with.
// What inputs contain becomes text nodes only, never markup.
import { made, shown } from "./shown.mjs";

const LARGEST = 64 << 20; // bytes of one input, as in vtd.page.given
const EXAMPLES = [
  ["A server: table, log, PCI listing", ["server-dmar.bin", "server-lspci.txt", "server-log.txt"]],
  ["QEMU's table and its log", ["qemu-dmar.bin", "qemu-log.txt"]],
  ["A table with mistakes", ["mistakes.toml"]],
  ["Registers of two units", ["capabilities.txt"]],
];

const find = (id) => document.getElementById(id);
const state = { inputs: [], edits: [], row: null, asked: 0 };

// The worker is made from a blob, because such a worker inherits this page's security policy.
const start = `import ${JSON.stringify(new URL("engine.mjs", import.meta.url).href)};`;
const engine = new Worker(URL.createObjectURL(new Blob([start], { type: "text/javascript" })), { type: "module" });
const waiting = new Map();
let ready = false;

engine.onmessage = ({ data }) => {
  if (data.ready) {
    ready = true;
    find("edit-name").replaceChildren(...data.ready.edits.map(([name, form]) => made("option", { value: name, "data-form": form }, name)));
    hint();
    find("report").hidden = !data.ready.report;
    if (!state.inputs.length) say("Ready.");
    document.body.dataset.ready = "yes";
  } else if (data.failed) {
    say(`Python could not be started here: ${data.failed}`);
  } else {
    const { resolve, reject } = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error === undefined) resolve(data.result);
    else reject(new Error(data.error));
  }
};
engine.onerror = (event) => say(`Python could not be started here: ${event.message ?? "a file is missing"}`);

function ask(call, ...values) {
  const id = ++state.asked;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
    engine.postMessage({ id, call, values });
  });
}

const say = (text) => { find("status").textContent = text; };
const pairs = () => state.inputs.map(({ name, bytes }) => [name, bytes]);

function give(name, bytes) {
  const taken = new Set(state.inputs.map((each) => each.name));
  let free = name;
  for (let number = 2; taken.has(free); number++) free = `${number}-${name}`;
  state.inputs.push({ name: free, bytes });
}

async function look() {
  listInputs();
  if (!state.inputs.length) {
    state.row = null;
    find("answers").replaceChildren();
    find("notes").replaceChildren();
    find("after").hidden = true;
    say("Nothing yet.");
    return;
  }
  say(ready ? "Looking…" : "Starting Python, a few seconds the first time…");
  document.body.dataset.state = "busy";
  const wanted = state.asked + 1;
  try {
    const row = JSON.parse(await ask("answers", pairs()));
    if (wanted !== state.asked) return; // something newer was asked meanwhile
    state.row = row;
    show(row);
  } catch (error) {
    say(`That went wrong: ${error.message}`);
  }
  document.body.dataset.state = "done";
}

function show(row) {
  const kinds = new Map(row.inputs.map((each) => [each.name, each.kind]));
  for (const item of find("inputs").children) {
    item.querySelector(".kind").textContent = kinds.get(item.dataset.name) ?? "not understood";
  }
  find("notes").replaceChildren(...row.notes.map((text) => made("li", {}, text)));
  find("answers").replaceChildren(...shown(row.answers));
  const tables = row.inputs.some((each) => each.kind === "DMAR table");
  find("after").hidden = !row.answers.length;
  find("edit").hidden = !tables;
  find("sarif").hidden = !tables;
  say(row.answers.length ? summary(row.answers) : "Nothing in it that can be answered.");
}

function summary(answers) {
  const parts = [];
  for (const { kind, about, document: found } of answers) {
    if (kind === "findings") {
      const count = found.reduce((sum, each) => sum + each.findings.length, 0);
      parts.push(`${about}: ${count === 0 ? "nothing found" : count === 1 ? "1 finding" : `${count} findings`}`);
    } else if (kind === "log") {
      const faults = found.faults.reduce((sum, each) => sum + each.count, 0);
      parts.push(`${about}: ${faults === 1 ? "1 fault" : `${faults} faults`}`);
    } else if (kind === "groups") {
      parts.push(`${about}: ${found.groups.length} isolation groups`);
    } else if (kind === "capabilities") {
      const bad = found.units.reduce((sum, each) => sum + each.contradictions.length, 0);
      parts.push(`${about}: ${found.units.length} units, ${bad} contradictions`);
    }
  }
  return `${parts.join("; ")}.`;
}

function removable(text, kind, remove) {
  const button = made("button", { type: "button", "aria-label": `Remove ${text}` }, "×");
  button.addEventListener("click", remove);
  return made("li", { "data-name": text }, made("span", {}, text), " ", made("span", { class: "kind" }, kind), button);
}

function listInputs() {
  find("inputs").replaceChildren(
    ...state.inputs.map((each) => removable(each.name, "", () => {
      state.inputs = state.inputs.filter((other) => other !== each);
      look();
    })),
  );
}

function save(name, content, type) {
  const link = made("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function take(files) {
  for (const file of files) {
    if (file.size > LARGEST) say(`${file.name}: more than ${LARGEST >> 20} MiB`);
    else give(file.name, new Uint8Array(await file.arrayBuffer()));
  }
  await look();
}

find("given").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = find("paste").value;
  if (!text.trim()) return;
  give("pasted.txt", new TextEncoder().encode(text));
  find("paste").value = "";
  look();
});
find("paste").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("given").requestSubmit();
});
find("files").addEventListener("change", async (event) => {
  await take([...event.target.files]);
  event.target.value = "";
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const text = event.dataTransfer.getData("text");
  if (event.dataTransfer.files.length) take([...event.dataTransfer.files]);
  else if (text) {
    give("dropped.txt", new TextEncoder().encode(text));
    look();
  }
});

for (const [title, names] of EXAMPLES) {
  const button = made("button", { type: "button", class: "plain" }, title);
  button.addEventListener("click", async () => {
    state.inputs = [];
    const read = async (name) => new Uint8Array(await (await fetch(`examples/${name}`)).arrayBuffer());
    const contents = await Promise.all(names.map(read));
    names.forEach((name, number) => give(name, contents[number]));
    await look();
  });
  find("examples").append(button);
}

function download(id, title, action) {
  const button = made("button", { type: "button", id }, title);
  button.addEventListener("click", () => action().catch((error) => say(error.message)));
  find("downloads").append(button);
}
download("json", "All answers as JSON", async () => save("answers.json", JSON.stringify(state.row, null, 1), "application/json"));
download("report", "Report", async () => {
  say("Writing the report…");
  save("report.html", await ask("report", pairs()), "text/html");
  say("The report was saved: one file, which asks nobody.");
});
download("sarif", "Findings as SARIF", async () => save("findings.sarif", await ask("findings_as_sarif", pairs()), "application/json"));

function hint() {
  const chosen = find("edit-name").selectedOptions[0];
  if (chosen) find("edit-text").placeholder = chosen.dataset.form;
}
find("edit-name").addEventListener("change", hint);
find("edit").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = find("edit-text").value.trim();
  if (!text) return;
  state.edits.push([find("edit-name").value, text]);
  find("edit-text").value = "";
  listEdits();
});
function listEdits() {
  find("edits").replaceChildren(
    ...state.edits.map((each) => removable(`--${each[0]} ${each[1]}`, "", () => {
      state.edits = state.edits.filter((other) => other !== each);
      listEdits();
    })),
  );
}
find("edited").addEventListener("click", async () => {
  try {
    save("edited-dmar.bin", await ask("edited", pairs(), state.edits), "application/octet-stream");
    say("The edited table was saved.");
  } catch (error) {
    say(`Not edited: ${error.message}`);
  }
});

navigator.serviceWorker?.register("offline.js");
