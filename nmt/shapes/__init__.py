"""The other shapes of a recurrent net, composed from the same encoder, decoder, cells, attention, loss and trainer.

    language_model   decoder alone: one to many, trained along a stream or on lines

Only `run` reaches a shape, by the `task` of a recipe, when it is asked for. A shape module has

    KIND                            its kind of recipe
    job(recipe, hardware, folder)   what `run` trains
    evaluate(folder, changes)       what its test split says of a trained model
"""
