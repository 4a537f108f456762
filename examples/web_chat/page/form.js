// A form made of a JSON schema: what a tool's arguments are. Flat objects; anything else is edited as JSON.

export function makeForm(schema, values) {
  const properties = schema?.properties ?? Object.fromEntries(Object.keys(values).map((name) => [name, {}]));
  const required = new Set(schema?.required ?? []);
  const fields = Object.entries(properties).map(([name, property]) =>
    field(name, resolved(property, schema), values[name] ?? property.default, required.has(name)));
  return { elements: fields.map((each) => each.element), read: () => read(fields) };
}

function read(fields) {
  const values = {};
  for (const each of fields) {
    const value = each.value();
    if (value !== undefined) values[each.name] = value;
  }
  return values;
}

function resolved(property, schema) {
  const name = property.$ref?.split("/").pop();
  return name ? { ...schema.$defs?.[name], ...property } : property;
}

function field(name, property, value, isRequired) {
  const label = document.createElement("label");
  label.className = "field";
  const title = document.createElement("span");
  title.textContent = property.title || name;
  let input;
  let get;
  if (property.enum) {
    input = document.createElement("select");
    for (const choice of property.enum) input.add(new Option(String(choice), JSON.stringify(choice)));
    input.value = JSON.stringify(value ?? property.enum[0]);
    get = () => JSON.parse(input.value);
  } else if (property.type === "boolean") {
    input = document.createElement("input");
    input.type = "checkbox";
    input.checked = Boolean(value);
    label.classList.add("check");
    get = () => input.checked;
  } else if (property.type === "integer" || property.type === "number") {
    input = document.createElement("input");
    input.type = "number";
    input.step = property.type === "integer" ? "1" : "any";
    if (property.minimum !== undefined) input.min = property.minimum;
    if (property.maximum !== undefined) input.max = property.maximum;
    input.value = value ?? "";
    get = () => (input.value === "" ? undefined : Number(input.value));
  } else if (property.type === "string") {
    input = document.createElement("input");
    if (property.maxLength) input.maxLength = property.maxLength;
    input.value = value ?? "";
    get = () => input.value;
  } else {
    input = document.createElement("textarea");
    input.rows = 4;
    input.value = value === undefined ? "" : JSON.stringify(value, null, 2);
    get = () => (input.value.trim() === "" ? undefined : JSON.parse(input.value));
  }
  input.name = name;
  if (isRequired && property.type !== "boolean" && property.type !== "string") input.required = true;
  if (property.type === "boolean") label.append(input, title);
  else label.append(title, input);
  return { name, element: label, value: get };
}
