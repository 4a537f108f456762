// Runs the scenarios in each line of standard input with the AI SDK's `Chat`, which `useChat` holds, and prints what it has in the end.
import { Chat } from "@ai-sdk/react";
import {
  DefaultChatTransport,
  lastAssistantMessageIsCompleteWithApprovalResponses,
  lastAssistantMessageIsCompleteWithToolCalls,
} from "ai";
import { makeFetch, serve } from "./cutting.mjs";

async function play(scenario) {
  const requests = [];
  const fetching = makeFetch(scenario, requests);
  const data = [];
  const called = [];
  const errors = [];
  const finished = [];
  const chat = new Chat({
    id: scenario.chatId ?? "chat",
    messages: scenario.messages ?? [],
    transport: new DefaultChatTransport({
      api: scenario.api ?? "http://canned/chat",
      headers: scenario.headers ?? {},
      fetch: fetching,
    }),
    sendAutomaticallyWhen: (all) =>
      lastAssistantMessageIsCompleteWithApprovalResponses(all) || lastAssistantMessageIsCompleteWithToolCalls(all),
    onData: (part) => void data.push(part),
    onToolCall: ({ toolCall }) => void called.push(toolCall.toolName),
    onError: (error) => void errors.push(error.message),
    onFinish: ({ finishReason, isDisconnect }) => void finished.push(isDisconnect ? "disconnect" : finishReason ?? null),
  });
  const after = [];
  for (const act of scenario.acts) {
    fetching.cutAfter = act.cutAfter;
    if (act.send !== undefined) await chat.sendMessage({ id: act.messageId, text: act.send });
    if (act.resume) await chat.resumeStream();
    if (act.approve) await settled(chat, finished, () => approve(chat, act.approve));
    if (act.answer !== undefined) await settled(chat, finished, () => answer(chat, act.answer));
    after.push({ status: chat.status, messages: structuredClone(chat.messages) });
  }
  return { after, messages: chat.messages, status: chat.status, data, called, errors, finished, requests };
}

const partsOf = (chat) => chat.messages.flatMap((message) => message.parts);

function approve(chat, { approved, reason }) {
  const part = partsOf(chat).find((each) => each.state === "approval-requested");
  return chat.addToolApprovalResponse({ id: part.approval.id, approved, reason });
}

function answer(chat, output) {
  const part = partsOf(chat).find((each) => each.type === "tool-ask" && each.state === "input-available");
  return chat.addToolOutput({ tool: "ask", toolCallId: part.toolCallId, output });
}

// The chat sends the answer by itself, and nothing tells of that but the end of the response.
async function settled(chat, finished, act) {
  const before = finished.length;
  await act();
  while (finished.length === before) await new Promise((resolve) => setTimeout(resolve, 5));
  while (chat.status === "submitted" || chat.status === "streaming") await new Promise((resolve) => setTimeout(resolve, 5));
}

serve(play);
