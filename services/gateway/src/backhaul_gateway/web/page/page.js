// Shows openapi.json as a page to read. It sends no request but for that document, and knows no credential.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
const DEEPEST = 6;

// Texts are set as texts and never parsed: whatever the document holds, it cannot become a part of the page.
function make(tag, text, ...children) {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  element.append(...children.filter(Boolean));
  return element;
}

function named(element, className) {
  element.className = className;
  return element;
}

function resolved(api, value) {
  if (!value || !value.$ref) return value || {};
  return value.$ref.split("/").slice(1).reduce((inside, key) => (inside || {})[key], api) || {};
}

// An example-like outline of a schema: what is where, and of which type.
function outline(api, schema, depth = 0) {
  const seen = resolved(api, schema);
  if (depth > DEEPEST) return "…";
  if (seen.enum) return seen.enum.join(" | ");
  if (seen.const !== undefined) return seen.const;
  const choices = (seen.anyOf || seen.oneOf || []).map((one) => outline(api, one, depth + 1));
  if (choices.length) {
    const texts = choices.map((one) => (typeof one === "string" ? one : JSON.stringify(one)));
    return choices.every((one) => typeof one === "string") ? texts.join(" | ") : choices.find((one) => typeof one !== "string");
  }
  if (seen.type === "array") return [outline(api, seen.items, depth + 1)];
  if (seen.properties) {
    const required = seen.required || [];
    return Object.fromEntries(
      Object.entries(seen.properties).map(([name, inner]) => [
        required.includes(name) ? name : `${name}?`,
        outline(api, inner, depth + 1),
      ]),
    );
  }
  if (seen.additionalProperties) return { "<any name>": outline(api, seen.additionalProperties, depth + 1) };
  return [seen.type || "any", seen.format && `(${seen.format})`].filter(Boolean).join(" ");
}

function shown(api, content) {
  return Object.entries(content || {}).map(([type, media]) => {
    const body = outline(api, media.schema);
    return make("div", "", make("code", type), make("pre", typeof body === "string" ? body : JSON.stringify(body, null, 2)));
  });
}

function bounds(schema) {
  const words = { minimum: "≥", maximum: "≤", minLength: "length ≥", maxLength: "length ≤", pattern: "like", default: "default" };
  return Object.entries(words)
    .filter(([key]) => schema[key] !== undefined && schema[key] !== "")
    .map(([key, word]) => `${word} ${schema[key]}`)
    .join(", ");
}

function parameters(api, list) {
  const table = make("table", "", make("tr", "", ...["Name", "In", "Type", "Meaning"].map((title) => make("th", title))));
  for (const one of list) {
    const schema = resolved(api, one.schema);
    table.append(
      make(
        "tr",
        "",
        make("td", "", make("code", one.name + (one.required ? "" : "?"))),
        make("td", one.in),
        make("td", [String(outline(api, schema)), bounds(schema)].filter(Boolean).join("; ")),
        make("td", one.description || schema.description || ""),
      ),
    );
  }
  return table;
}

function operation(api, path, method, about) {
  const summary = make(
    "summary",
    "",
    named(make("span", method.toUpperCase()), "method"),
    make("code", path),
    named(make("span", about.summary || ""), "about"),
  );
  const inside = make("div", "", make("p", about.description || ""));
  const security = (about.security || []).flatMap(Object.keys);
  if (security.length) inside.append(make("p", `Credential: ${[...new Set(security)].join(" or ")}`));
  if ((about.parameters || []).length) inside.append(make("h4", "Parameters"), parameters(api, about.parameters));
  if (about.requestBody) inside.append(make("h4", "Body"), ...shown(api, about.requestBody.content));
  for (const [status, answer] of Object.entries(about.responses || {})) {
    inside.append(make("h4", `${status} ${answer.description || ""}`), ...(status < "300" ? shown(api, answer.content) : []));
  }
  const details = named(make("details", "", summary, inside), "operation");
  details.id = about.operationId || `${method}${path}`;
  return details;
}

function credentials(schemes) {
  const table = make("table", "", make("tr", "", ...["Credential", "Sent as", "What it is"].map((title) => make("th", title))));
  for (const [name, scheme] of Object.entries(schemes || {})) {
    const sent = scheme.type === "apiKey" ? `${scheme.name}: …` : `Authorization: ${scheme.scheme} …`;
    table.append(make("tr", "", make("td", name), make("td", "", make("code", sent)), make("td", scheme.description || "")));
  }
  return table;
}

function page(api) {
  const problem = outline(api, { $ref: "#/components/schemas/Problem" });
  const sections = (api.tags || []).map((tag) => ({ tag, operations: [] }));
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((name) => methods[name])) {
      const tag = (methods[method].tags || [])[0];
      let section = sections.find((one) => one.tag.name === tag);
      if (!section) sections.push((section = { tag: { name: tag || "other" }, operations: [] }));
      section.operations.push(operation(api, path, method, methods[method]));
    }
  }
  const source = make("a", "openapi.json");
  source.href = "openapi.json";
  return [
    make("h1", `${api.info.title} `, make("small", api.info.version)),
    make("p", api.info.description || ""),
    make("p", "For tools: ", source),
    credentials((api.components || {}).securitySchemes),
    ...sections
      .filter((one) => one.operations.length)
      .flatMap((one) => [make("h2", one.tag.name), make("p", one.tag.description || ""), ...one.operations]),
    make("h2", "Problems"),
    make("p", "Every answer of 400 and above, but for what the server itself refuses, is a document of this shape:"),
    make("pre", JSON.stringify(problem, null, 2)),
  ];
}

(async () => {
  const place = document.getElementById("page");
  try {
    const answer = await fetch("openapi.json");
    if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
    const api = await answer.json();
    document.title = api.info.title;
    place.replaceChildren(...page(api));
    if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.setAttribute("open", "");
  } catch (error) {
    place.replaceChildren(make("p", `The documentation cannot be shown: ${error.message}`));
  }
})();
