// One line of JSON for each case: what Node's library of OpenAI, as agents use it, made of it.
import fs from 'node:fs'
import { createRequire } from 'node:module'
const require = createRequire(process.env.CLIENTS + '/')
const { fetch, ProxyAgent } = require('undici')
const { OpenAI } = require('openai')
const dispatcher = new ProxyAgent({ uri: process.env.HTTPS_PROXY, requestTls: { ca: fs.readFileSync(process.env.SSL_CERT_FILE) } })
const o = new OpenAI({ apiKey: 'none', baseURL: 'https://inference.local/v1', maxRetries: 0, fetch, fetchOptions: { dispatcher } })
const messages = [{ role: 'user', content: 'hello' }]
const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } } }]

async function one(name, ask) {
  const out = { case: name }
  try {
    out.body = await ask()
  } catch (e) {
    out.status = e.status
    out.failed = String(e)
  }
  console.log(JSON.stringify(out))
}
async function streamed(model, more) {
  let text = ''
  for await (const c of await o.chat.completions.create({ model, messages, stream: true, ...more })) {
    const d = c.choices[0]?.delta
    text += d?.content ?? d?.tool_calls?.map((t) => (t.function.name ?? '') + t.function.arguments).join() ?? ''
  }
  return text
}
await one('chat', async () => (await o.chat.completions.create({ model: 'any', messages })).choices[0].message.content)
await one('chat, streamed', () => streamed('any'))
await one('a tool', async () => { const f = (await o.chat.completions.create({ model: 'any', messages, tools })).choices[0].message.tool_calls[0].function; return f.name + f.arguments })
await one('a tool, streamed', () => streamed('any', { tools }))
await one('chat, broken off', () => streamed('broken'))
await one('embeddings', async () => JSON.stringify((await o.embeddings.create({ model: 'any', input: 'x', encoding_format: 'float' })).data[0].embedding))
await one('models', async () => (await o.models.list()).data.map((m) => m.id).join())
await one('files', async () => String((await o.files.list()).data))
