// test_openai.mjs COMMAND... - a server against npm's openai and ai.
//
// COMMAND as for test_http.py. Ends with "N passed, N failed".
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

// Where npm installed them, which need not be above this file.
const from = createRequire(process.env.MODULES + '/package.json');
const load = async (name) => import(pathToFileURL(from.resolve(name)));

const HELLO = '안녕하세요, 반가워요 👩‍👩‍👧‍👦🇰🇷! "따옴표" \\ and a tab\t<b>.\n' +
    '둘째 줄입니다.';
const TOOLS = [{ type: 'function', function: {
    name: 'get_weather', parameters: { type: 'object' } } }];
const user = (content) => [{ role: 'user', content }];
let passed = 0, failed = 0;
function check(what, holds) {
    if (holds) passed++;
    else { failed++; console.log('failed:', what); }
}

async function openai(baseURL) {
    const { default: OpenAI } = await load('openai');
    const client = new OpenAI({ baseURL, apiKey: 'x', maxRetries: 0 });
    const model = (await client.models.list()).data[0].id;
    const ask = (body) => client.chat.completions.create({ model, ...body });
    let made = await ask({ messages: user('hi') });
    check('text', made.choices[0].message.content === HELLO);
    let text = '';
    for await (const e of await ask({ messages: user('hi'), stream: true }))
        text += e.choices[0]?.delta?.content ?? '';
    check('stream', text === HELLO);
    made = await ask({ messages: user('weather'), tools: TOOLS });
    const call = made.choices[0].message.tool_calls[0];
    check('call', JSON.parse(call.function.arguments).city === '서울');
    const runner = client.chat.completions.stream({
        model, messages: user('weather'), tools: TOOLS });
    const whole = await runner.finalChatCompletion();
    check('call as a stream', JSON.parse(
        whole.choices[0].message.tool_calls[0].function.arguments).days === 2);
    let status = 0;
    try { await ask({ messages: [] }); } catch (e) { status = e.status; }
    check('refused', status === 400);
    const events = await ask({ messages: user('count'), stream: true });
    for await (const e of events) if (e.choices[0]?.delta?.content) break;
    const begun = Date.now();
    await ask({ messages: user('x'), max_tokens: 1 });
    check('left', Date.now() - begun < 1000);
    return model;
}

async function ai(baseURL, model) {
    const { createOpenAICompatible } = await load('@ai-sdk/openai-compatible');
    const { generateText, streamText } = await load('ai');
    const it = createOpenAICompatible({ name: 'ksllm', baseURL })
        .chatModel(model);
    const made = await generateText({ model: it, prompt: 'hi' });
    check('ai: text', made.text === HELLO);
    check('ai: reason', made.finishReason === 'stop');
    let text = '';
    for await (const t of streamText({ model: it, prompt: 'hi' }).textStream)
        text += t;
    check('ai: stream', text === HELLO);
}

const server = spawn(process.argv[2], process.argv.slice(3),
    { stdio: ['ignore', 'pipe', 'inherit'] });
for await (const url of createInterface({ input: server.stdout })) {
    const model = await openai(url);
    await ai(url, model);
    break;
}
server.kill('SIGINT');
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
