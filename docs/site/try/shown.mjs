// Documents of commands as elements: one function for each kind of answer.

const MANY = 200; // rows shown before the rest waits for a click

export function made(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const TITLES = {
  findings: "Findings",
  rules: "The rules behind them",
  log: "What the log says",
  statements: "What the table proves about protection",
  scope: "Devices and their units",
  groups: "Isolation groups",
  table: "What the table says",
  capabilities: "What the units can do",
};
const SHOWN = { findings, rules, table, statements, log, capabilities, groups };

// What is wrong comes first, what is only long comes last. Devices are one table, a row for each command.
export function shown(answers) {
  return Object.keys(TITLES).flatMap((kind) => {
    const some = answers.filter((each) => each.kind === kind);
    if (kind !== "scope") return some.map((each) => section(each, SHOWN[kind](each.document)));
    return some.length ? [section(some[0], scope(some.map((each) => each.document)), some)] : [];
  });
}

function section({ kind, about, command }, content, all) {
  const id = `${kind}-${about}`.replace(/[^\w-]/g, "_");
  const source = all ? all.map((each) => each.command).join("\n") : command;
  return made(
    "section",
    { class: `answer ${kind}`, "data-kind": kind, "data-about": about, "aria-labelledby": id },
    made("h2", { id }, `${TITLES[kind]}: `, made("span", { class: "about" }, about)),
    ...content,
    made("details", { class: "command" }, made("summary", {}, "On the command line"), made("pre", { tabindex: "0" }, source)),
  );
}

// A list of which the end, where it is long, is made only when it is asked for.
function growing(parent, items, each) {
  parent.append(...items.slice(0, MANY).map(each));
  if (items.length <= MANY) return [parent];
  const more = made("button", { type: "button", class: "plain" }, `Show ${items.length - MANY} more`);
  more.addEventListener("click", () => {
    parent.append(...items.slice(MANY).map(each));
    more.remove();
  });
  return [parent, more];
}

function grid(names, rows, row) {
  const body = made("tbody");
  const head = made("thead", {}, made("tr", {}, ...names.map((name) => made("th", { scope: "col" }, name))));
  const [, ...more] = growing(body, rows, row);
  const scrolled = made("div", { class: "scrolled", tabindex: "0", role: "group", "aria-label": names.join(", ") }, made("table", {}, head, body));
  return [scrolled, ...more];
}

const line = (...cells) => made("tr", {}, ...cells.map((cell) => (cell instanceof Element ? cell : made("td", {}, cell))));
const badge = (word) => made("td", {}, made("span", { class: `badge ${word}` }, word));
const hex = (number, digits = 0) => `0x${number.toString(16).padStart(digits, "0")}`;
const code = (text) => made("td", {}, made("code", {}, text));

function findings(files) {
  return files.flatMap(({ file, findings: found }) => {
    const title = files.length > 1 ? [made("h3", {}, file)] : [];
    if (!found.length) return [...title, made("p", { class: "good" }, "Nothing found.")];
    const row = (each) => line(badge(each.severity), code(each.rule), code(hex(each.offset, 3)), each.message);
    return [...title, ...grid(["Severity", "Rule", "Offset", "What"], found, row)];
  });
}

function rules(rows) {
  return rows.map((rule) => made(
    "details",
    { "data-rule": rule.rule },
    made("summary", {}, made("code", {}, rule.rule), ` ${rule.title} `, made("span", { class: `badge ${rule.severity}` }, rule.severity)),
    made("p", {}, rule.meaning),
    made("p", {}, rule.section ? `Specification: VT-d ${rule.section}` : "Specification: none, own judgement"),
    ...(rule.needs ? [made("p", {}, `Needs: ${rule.needs}`)] : []),
    definitions(rule.software),
  ));
}

function definitions(values) {
  return made("dl", {}, ...Object.entries(values).flatMap(([name, value]) => [made("dt", {}, name), made("dd", {}, plain(value, name))]));
}

// Numbers as the commands print them: addresses and what is longer than a byte in hexadecimal.
function plain(value, name) {
  if (typeof value === "number" && value > 255 && !name.startsWith("length")) return hex(value);
  if (value === null || value.length === 0) return "none";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

const place = (hops) => hops.map(([device, number]) => `${device.toString(16).padStart(2, "0")}.${number}`).join("/");

function table(documents) {
  return documents.map(({ file, decoded }) => {
    const { structures, header, ...rest } = decoded;
    const fields = branch("header", { ...header, ...rest });
    const inside = structures.length ? structures.map(structure) : [leaf("structures", [])];
    return made("ul", { class: "tree", "aria-label": file }, fields, ...inside);
  });
}

function branch(title, values, ...more) {
  const leaves = Object.entries(values).map(([name, value]) => leaf(name, value));
  const inside = made("ul", {}, ...leaves, ...more);
  return made("li", {}, made("details", {}, made("summary", {}, title), inside));
}

function leaf(name, value) {
  if (value !== null && typeof value === "object" && !Array.isArray(value)) return branch(name, value);
  return made("li", { "data-name": name, "data-value": JSON.stringify(value) }, `${name} `, made("b", {}, plain(value, name)));
}

function structure(each) {
  const { device_scope: entries = [], ...fields } = each;
  const devices = entries.map((entry) => `${entry.type_name} ${entry.start_bus.toString(16).padStart(2, "0")}:${place(entry.path)}`);
  const brief = [each.name, `at ${hex(each.offset, 3)}`];
  if ("register_base" in each) brief.push(`registers ${hex(each.register_base)}`);
  if ("base" in each) brief.push(`${hex(each.base)}-${hex(each.limit)}`);
  if (each.include_pci_all) brief.push("INCLUDE_PCI_ALL");
  if (each.object_name) brief.push(each.object_name);
  brief.push(...devices.slice(0, 3), ...(devices.length > 3 ? [`and ${devices.length - 3} more`] : []));
  return branch(brief.join(", "), fields, ...entries.map((entry, number) => branch(devices[number], entry)));
}

function statements(rows) {
  const row = (each) => line(badge(each.verdict), each.topic, each.text, code(each.offset === null ? "" : hex(each.offset, 3)));
  return grid(["Verdict", "About", "What", "Offset"], rows, row);
}

function log({ faults, messages }) {
  const cards = made("div", { class: "faults" });
  const lists = growing(cards, faults, fault);
  if (!faults.length) lists.unshift(made("p", { class: "good" }, "No fault."));
  const row = (each) => line(
    badge(each.weight),
    made("td", {}, each.lines.length ? each.lines[0].text : "", made("p", {}, each.meaning ?? ""), ...(each.look_at ? [made("p", {}, `Look at: ${each.look_at}`)] : [])),
    each.lines.map((other) => other.line).slice(0, 8).join(", ") + (each.lines.length > 8 ? ", …" : ""),
  );
  const rows = (some) => grid(["Weight", "Message", "Lines"], some, row);
  const [normal, other] = [messages.filter((each) => each.weight === "normal"), messages.filter((each) => each.weight !== "normal")];
  if (other.length) lists.push(...rows(other));
  if (normal.length) lists.push(folded(`${normal.length} kinds of lines as usual`, ...rows(normal)));
  return lists;
}

function fault(each) {
  const times = each.count === 1 ? "once" : `${each.count} times`;
  const ranges = each.ranges.map(([start, end]) => (start === end ? start : `${start}-${end}`));
  const facts = {
    lines: each.lines[0] === each.lines[1] ? each.lines[0] : `${each.lines[0]}-${each.lines[1]}`,
    [each.kind === "interrupt" ? "index" : "address"]: ranges.join(", "),
    reason: each.reason === null ? null : `${hex(each.reason, 2)} ${each.text ?? "not assigned by the specification"}`,
    "stopped at": each.stopped_at,
    unit: each.unit,
    region: each.region.map((hit) => `inside the RMRR ${hit.base}-${hit.limit} of ${hit.of}`).join("; "),
    alias: each.alias?.length ? `requests of ${each.alias.join(", ")} carry this id` : null,
    source: each.source,
    pasid: each.pasid === null ? null : hex(each.pasid),
    "printed by": each.system,
    "not told": each.missing.join(", "),
    dump: [...(each.level.length ? [`no entry present at level ${each.level.join(", ")}`] : []), ...each.contradictions].join("; "),
  };
  const known = Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== null && value !== ""));
  const listed = (title, items) => (items.length ? [made("h4", {}, title), made("ul", {}, ...items.map((text) => made("li", {}, text)))] : []);
  return made(
    "article",
    { class: "fault" },
    made("h3", {}, `${each.device ?? "unknown device"}: ${each.kind} blocked ${times}`),
    definitions(known),
    ...listed("Likely", each.likely),
    ...listed("Look at", each.look_at),
  );
}

function capabilities({ units, differ }) {
  const content = [];
  units.forEach((unit, number) => {
    const title = unit.name || `unit ${number + 1}`;
    content.push(made("h3", {}, `${title}: CAP ${unit.cap} ECAP ${unit.ecap}`));
    for (const text of unit.contradictions) content.push(made("p", {}, made("span", { class: "badge error" }, "contradiction"), ` ${text}`));
    for (const text of unit.notes) content.push(made("p", {}, made("span", { class: "badge info" }, "note"), ` ${text}`));
  });
  const names = units.length ? Object.keys(units[0].fields) : [];
  const different = new Set(differ);
  const row = (name) => {
    const cells = line(code(name), ...units.map((unit) => code(unit.fields[name] > 9 ? hex(unit.fields[name]) : String(unit.fields[name]))));
    if (different.has(name)) cells.className = "differs";
    return cells;
  };
  const heads = units.map((unit, number) => unit.name || `unit ${number + 1}`);
  if (units.length > 1) content.push(made("p", {}, differ.length ? `They differ in ${differ.length} fields:` : "They differ in nothing."));
  const all = grid(["Field", ...heads], names, row);
  if (units.length < 2) return [...content, ...all];
  return [...content, ...grid(["Field", ...heads], differ, row), folded("All fields", ...all)];
}

const folded = (title, ...content) => made("details", {}, made("summary", {}, title), ...content);

function groups({ groups: found, joins, certain, trusted, override }) {
  const list = made("ol", { class: "groups" });
  const reasons = (members) => joins.filter((join) => members.includes(join.functions[1]));
  const item = (members) => made(
    "li",
    {},
    made("code", {}, members.join(", ")),
    ...reasons(members).map((join) => made("p", {}, `${join.functions[1]} with ${join.functions[0]}: ${join.known ? "" : "not known: "}${join.reason}`)),
  );
  const content = growing(list, found, item);
  if (!certain) content.push(made("p", {}, "Not certain: the listing does not show everything that decides."));
  for (const each of trusted) content.push(made("p", {}, `${each.function} counts as isolated: ${each.reason} (${each.source})`));
  if (JSON.stringify(override.groups) !== JSON.stringify(found)) {
    content.push(made("p", {}, `With pcie_acs_override=downstream,multifunction Linux would show ${override.groups.length} groups; these would still share: ${override.shared.map((each) => each.functions.join(" and ")).join("; ")}.`));
  }
  return content;
}

function scope(rows) {
  const row = (each) => line(
    code(each.device),
    code(each.unit ?? "none"),
    each.reason ?? "",
    Array.isArray(each.regions) ? each.regions.join(", ") : each.regions,
    each.alias ?? "",
    each.bridges.join(", "),
  );
  return grid(["Device", "Unit", "Why", "Reserved regions", "Alias", "Bridges above"], rows, row);
}
