/**
 * The gRPC shapes of the generated services for grpc-js: paths and (de)serializers, made from the descriptors.
 * `methodOf` types a client call; `serviceDefinition` lets the embedded engine serve the same descriptor.
 */
import { type DescMessage, type DescMethod, type DescService, type MessageShape, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { ServiceDefinition } from '@grpc/grpc-js';

export interface Method<I extends DescMessage, O extends DescMessage> {
  readonly path: string;
  readonly serialize: (message: MessageShape<I>) => Buffer;
  readonly deserialize: (bytes: Buffer) => MessageShape<O>;
}

/** toBinary answers a view of fresh memory; Buffer.from(buffer, offset, length) shares it without a copy. */
function encode(schema: DescMessage, message: MessageShape<DescMessage>): Buffer {
  const bytes = toBinary(schema, message);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

export function methodOf<I extends DescMessage, O extends DescMessage>(method: { readonly input: I; readonly output: O }): Method<I, O> {
  const { input, output } = method;
  return {
    path: pathOf(method as unknown as DescMethod),
    serialize: (message) => encode(input, message),
    deserialize: (bytes) => fromBinary(output, bytes),
  };
}

export function serviceDefinition(service: DescService): ServiceDefinition {
  const definition: Record<string, ServiceDefinition[string]> = {};
  for (const method of service.methods) {
    const { input, output } = method;
    definition[method.name] = {
      path: pathOf(method),
      requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
      responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
      requestSerialize: (message: MessageShape<DescMessage>) => encode(input, message),
      requestDeserialize: (bytes: Buffer) => fromBinary(input, bytes),
      responseSerialize: (message: MessageShape<DescMessage>) => encode(output, message),
      responseDeserialize: (bytes: Buffer) => fromBinary(output, bytes),
    };
  }
  return definition;
}
