// What OpenAI's client for Node makes of an endpoint: one JSON object on standard output.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL + "/v1", apiKey: process.env.API_KEY, maxRetries: 0 });
const asked = { model: "chat", max_tokens: 4, temperature: 0, messages: [{ role: "user", content: "Say hello." }] };

const whole = await client.chat.completions.create(asked);
const pieces = [];
let usage = null;
const stream = await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } });
for await (const event of stream) {
  pieces.push(event.choices[0]?.delta?.content ?? "");
  usage = event.usage ?? usage;
}
const vectors = await client.embeddings.create({ model: "vectors", input: ["one", "two"] });
const models = [];
for await (const model of client.models.list()) models.push(model.id);
const refused = await client.chat.completions.create({ ...asked, model: "nobody" }).catch((error) => error);

console.log(
  JSON.stringify({
    whole: whole.choices[0].message.content,
    streamed: pieces.join(""),
    reason: whole.choices[0].finish_reason,
    tokens: [whole.usage.completion_tokens, usage?.completion_tokens],
    vectors: vectors.data.length,
    models,
    refused: [refused.constructor.name, refused.status, refused.code],
  }),
);
