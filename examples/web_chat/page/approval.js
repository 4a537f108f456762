// The dialog in which a call of a tool is looked at, changed, and approved or rejected.

import { api } from "./api.js";
import { makeForm } from "./form.js";

const $ = (id) => document.getElementById(id);
let current = null;

// `asked` is what the stream or the inbox tells of an approval: tool, description, arguments, digest, schema, key.
export function openApproval(id, asked, onDecided) {
  const isShown = $("approval").open && current.id === id && current.asked.digest === asked.digest;
  if (isShown) return; // what was changed in it stays
  const form = makeForm(asked.schema, asked.arguments);
  current = { id, asked, form, onDecided };
  $("approval-title").textContent = `May ${asked.tool} be called?`;
  $("approval-about").textContent = asked.description ?? "";
  $("approval-fields").replaceChildren(...form.elements);
  $("approval-reason").value = "";
  $("approval-problem").hidden = true;
  if (!$("approval").open) $("approval").showModal();
}

async function decide(how) {
  const { id, asked, form, onDecided } = current;
  const body = { digest: asked.digest, key: asked.key };
  const reason = $("approval-reason").value.trim();
  if (reason) body.reason = reason;
  try {
    if (how === "approve") {
      const values = form.read();
      if (JSON.stringify(sorted(values)) !== JSON.stringify(sorted(asked.arguments))) body.arguments = values;
    }
    await api[how](id, body);
    $("approval").close();
  } catch (error) {
    $("approval-problem").textContent = error.message;
    $("approval-problem").hidden = false;
  }
  onDecided();
}

function sorted(values) {
  return Object.entries(values).sort(([a], [b]) => (a < b ? -1 : 1));
}

$("approval-later").addEventListener("click", () => $("approval").close());
$("approval-reject").addEventListener("click", () => decide("reject"));
$("approval").querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  decide("approve");
});
