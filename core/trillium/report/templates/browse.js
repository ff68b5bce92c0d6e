"use strict";
const samples = JSON.parse(document.getElementById("samples").textContent);
const perPage = 40;
const find = (id) => document.getElementById(id);
const make = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};
for (const sample of samples) {
  const words = [sample.id, sample.kind, sample.file, ...sample.badges];
  for (const node of sample.nodes) words.push(...node.badges, ...node.parts.map((part) => part[0]));
  sample.text = words.join("\n").toLowerCase();
}
for (const [id, key] of [["kind", "kind"], ["file", "file"]]) {
  for (const value of new Set(samples.map((sample) => sample[key]))) {
    find(id).append(make("option", "", value));
  }
}

function drawNode(sample, index) {
  const node = sample.nodes[index];
  const box = make("div", "node");
  for (const badge of node.badges) box.append(make("span", "badge " + badge.split(" ")[0], badge));
  const text = make("pre", "text");
  for (const [part, isScored] of node.parts) text.append(make("span", isScored ? "scored" : "given", part));
  box.append(text);
  const children = make("div", "children");
  sample.nodes.forEach((other, number) => {
    if (other.parent === index) children.append(drawNode(sample, number));
  });
  if (children.childElementCount) box.append(children);
  return box;
}

function drawSample(sample) {
  const item = make("details", "sample");
  const line = make("summary");
  line.append(make("code", "", sample.id), make("span", "kind", sample.kind));
  for (const badge of sample.badges) line.append(make("span", "badge", badge));
  // Prompts often begin alike; what the policy wrote tells samples apart.
  const parts = sample.nodes.flatMap((node) => node.parts);
  const written = parts.filter((part) => part[1]);
  const told = (written.length ? written : parts).map((part) => part[0].trim()).join(" | ");
  line.append(make("span", "first", told.slice(0, 120)));
  item.append(line);
  // A tree is drawn when it is opened: a page of thousands stays light.
  item.addEventListener("toggle", () => {
    if (item.open && item.childElementCount === 1) {
      sample.nodes.forEach((node, index) => {
        if (node.parent < 0) item.append(drawNode(sample, index));
      });
    }
  });
  return item;
}

let page = 0;
function draw() {
  const query = find("query").value.toLowerCase();
  const kept = samples.filter((sample) =>
    (!query || sample.text.includes(query)) &&
    (!find("kind").value || sample.kind === find("kind").value) &&
    (!find("file").value || sample.file === find("file").value));
  const nPages = Math.max(1, Math.ceil(kept.length / perPage));
  page = Math.min(page, nPages - 1);
  const list = find("list");
  list.replaceChildren(...kept.slice(page * perPage, (page + 1) * perPage).map(drawSample));
  if (kept.length === 1) list.firstElementChild.open = true;
  find("count").textContent = `${kept.length} of ${samples.length} samples, page ${page + 1} of ${nPages}`;
  find("previous").disabled = page === 0;
  find("next").disabled = page === nPages - 1;
}
function restart() {
  page = 0;
  history.replaceState(null, "", "#" + encodeURIComponent(find("query").value));
  draw();
}
find("query").value = decodeURIComponent(location.hash.slice(1));
for (const id of ["query", "kind", "file"]) find(id).addEventListener("input", restart);
find("previous").addEventListener("click", () => { page -= 1; draw(); });
find("next").addEventListener("click", () => { page += 1; draw(); });
draw();
