/** The server's API as the verbs use it: failures carry their exit code, backups go through files. */
import { createReadStream, createWriteStream } from 'node:fs';
import { open, readFile, rename, rm } from 'node:fs/promises';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type ApiClient, createApiClient } from '../api/client.ts';
import type { ApiFailure } from '../api/errors.ts';
import type { Answer, BodyIn, ParamsIn, RouteName } from '../api/routes.ts';
import { type Connection, messageOf } from './context.ts';
import { type CliFailure, type CliResult, EXIT, cliError, usageError } from './exit.ts';
