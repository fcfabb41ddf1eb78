// Bundles the program: dist/pgherd.mjs (all roles and verbs) and dist/guard.mjs (the small process that fences).
// Does nothing when nothing changed. Usage: node scripts/build.mjs [--force] [--quiet]
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, renameSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const dist = join(root, 'dist');
const stampFile = join(dist, '.stamp');
const force = process.argv.includes('--force');
const say = process.argv.includes('--quiet') ? () => {} : (line) => process.stderr.write(`${line}\n`);

/** Chunks of an earlier build stay this long, for processes that run and have not loaded them yet. */
const KEEP_OLD_CHUNKS_MS = 3_600_000;

const started = performance.now();
const stamp = hashInputs();
if (!force && existsSync(join(dist, 'pgherd.mjs')) && readStamp() === stamp) {
  say('build: nothing changed');
} else {
  await bundle();
  say(`build: dist/pgherd.mjs, dist/guard.mjs in ${Math.round(performance.now() - started)} ms`);
}

async function bundle() {
  const version = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version;
  const result = await build({
    absWorkingDir: root,
    entryPoints: { pgherd: 'src/main.ts', guard: 'src/agent/guard/guard-main.ts' },
    outdir: 'dist',
    outExtension: { '.js': '.mjs' },
    // Beside the entry points, so that files are found relative to import.meta.url from every chunk.
    chunkNames: 'chunk-[hash]',
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    write: false,
    metafile: true,
    legalComments: 'none',
    logLevel: 'warning',
    define: { 'process.env.PGHERD_BUILD_VERSION': JSON.stringify(version) },
    // Optional native parts that their packages do without.
    external: ['pg-native'],
    banner: {
      // Packages in CommonJS form still ask for `require`, `__dirname` and `__filename`.
      js: [
        "import { createRequire as pgherdCreateRequire } from 'node:module';",
        "import { dirname as pgherdDirname } from 'node:path';",
        "import { fileURLToPath as pgherdFileUrlToPath } from 'node:url';",
        'const require = pgherdCreateRequire(import.meta.url);',
        'const __filename = pgherdFileUrlToPath(import.meta.url);',
        'const __dirname = pgherdDirname(__filename);',
      ].join('\n'),
    },
  });
  mkdirSync(dist, { recursive: true });
  const entries = ['pgherd.mjs', 'guard.mjs'];
  const names = result.outputFiles.map((file) => relative(dist, file.path));
  // Entry points last: whoever starts the program meanwhile gets a whole build, the old one or the new one.
  const ordered = [...result.outputFiles].sort(
    (a, b) => Number(entries.includes(relative(dist, a.path))) - Number(entries.includes(relative(dist, b.path))),
  );
  for (const file of ordered) {
    const temporary = `${file.path}.${process.pid}.tmp`;
    writeFileSync(temporary, file.contents);
    if (entries.includes(relative(dist, file.path))) chmodSync(temporary, 0o755);
    renameSync(temporary, file.path);
  }
  for (const name of readdirSync(dist)) {
    const path = join(dist, name);
    if (name.endsWith('.mjs') && !names.includes(name) && Date.now() - statSync(path).mtimeMs > KEEP_OLD_CHUNKS_MS) unlinkSync(path);
  }
  writeFileSync(stampFile, stamp);
}

function readStamp() {
  return existsSync(stampFile) ? readFileSync(stampFile, 'utf8') : '';
}

function hashInputs() {
  const hash = createHash('sha256');
  const files = ['package.json', 'package-lock.json', 'scripts/build.mjs', ...walk('src')];
  for (const file of files)
    hash
      .update(file)
      .update('\0')
      .update(readFileSync(join(root, file)))
      .update('\0');
  return hash.digest('hex');
}

function walk(folder) {
  const found = [];
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) found.push(...walk(path));
    else if (/\.(ts|js|json|proto|sql)$/.test(entry.name)) found.push(path);
  }
  return found.sort();
}
