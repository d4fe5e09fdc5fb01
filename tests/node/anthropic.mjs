// What Anthropic's client for Node makes of an endpoint: one JSON object on standard output.
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY, maxRetries: 0 });
const asked = { model: "chat", max_tokens: 4, temperature: 0, messages: [{ role: "user", content: "Say hello." }] };

const whole = await client.messages.create(asked);
const stream = client.messages.stream(asked);
const pieces = [];
stream.on("text", (text) => pieces.push(text));
const message = await stream.finalMessage();
const models = [];
for await (const model of client.models.list({ limit: 1 })) models.push(model.id);
const refused = await client.messages.create({ ...asked, model: "nobody" }).catch((error) => error);

console.log(
  JSON.stringify({
    whole: whole.content[0].text,
    streamed: pieces.join(""),
    message: message.content[0].text,
    reasons: [whole.stop_reason, message.stop_reason],
    tokens: [whole.usage.output_tokens, message.usage.output_tokens],
    models,
    refused: [refused.constructor.name, refused.status, refused.error?.error?.code],
  }),
);
